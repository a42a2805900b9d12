package autopilot
import ("testing";"pgregory.net/rapid";"fmt")
func TestDbg(t *testing.T){ rapid.Check(t, func(t *rapid.T){
 in,cfg:=genInput(t),genConfig(t)
 start:=in
 log:=""
 did:=map[uint64]string{}
 for r:=0;r<60;r++{ s,p:=Decide(in,cfg,t0); if len(p)==0{break}
  for _,c:=range p { did[c.NodeID]+=string(c.Kind)+" "; log+=fmt.Sprintf("%d: %+v\n",r,c)}
  in.Previous=Carry(s); in=apply(in,p)}
 for id,k:=range did { if contains2(k){ 
   out:=""
   s,_:=Decide(start,cfg,t0)
   for i,v:=range s.Servers{ out+=fmt.Sprintf("%d role=%q mode=%s drain=%s pin=%v row=%v status=%s healthy=%v rec=%v lc=%v\n",v.NodeID,v.Role,v.Mode,v.DrainState,v.Pinned,start.Members[i].Member,v.NodeStatus,v.Healthy,v.Recovering,t0.Sub(start.Members[i].LastContact))}
   t.Fatalf("node %d %s\n%s\nleader %d cfg %+v\n%s",id,k,log,start.LeaderID,cfg,out)}}
})}
