package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"muster/cluster/datadir"
	"muster/internal/naming"
	"muster/store"
)

// become returns the identity of this member. A new machine first founds or joins a cluster.
func (n *Node) become(ctx context.Context) (*datadir.Node, error) {
	known, err := n.dir.Node()
	if err != nil {
		return nil, err
	}
	if (known == nil || n.cfg.Rejoin) && n.cfg.JoinErr != nil {
		return nil, n.cfg.JoinErr
	}
	if known != nil {
		self, err := n.again(ctx, known)
		return n.marked(self, err)
	}
	if n.cfg.Name != "" {
		if err := store.CheckMemberName(n.cfg.Name); err != nil {
			return nil, fmt.Errorf("--name: %w", err)
		}
	}
	if err := n.dir.CheckFresh(); err != nil {
		return nil, err
	}
	switch {
	case n.cfg.Join != "":
		self, err := n.join(ctx, nil)
		return n.marked(self, err)
	case len(n.cfg.Members) > 0:
		return nil, fmt.Errorf("--peer says where other members are and %s is not the data directory of a member: "+
			"give --join TOKEN too, or the right --data; without --peer a new cluster would be founded", n.cfg.Data)
	case n.cfg.Mark != "":
		if err := n.dir.CheckMark(n.cfg.Mark); err != nil {
			return nil, err
		}
	}
	self, err := n.found()
	return n.marked(self, err)
}

// marked writes the mark of this machine outside of the data directory. A failure does not prevent the start.
func (n *Node) marked(self *datadir.Node, err error) (*datadir.Node, error) {
	if err == nil && n.cfg.Mark != "" {
		if err := n.dir.Mark(n.cfg.Mark, self); err != nil {
			n.log.Warn("the mark of this machine's member could not be written outside of its data directory", "err", err)
		}
	}
	return self, err
}

// plan returns the plan of this member from its configuration.
func (n *Node) plan() datadir.Plan {
	p := datadir.Plan{
		Name:        n.cfg.Name,
		NameGiven:   n.cfg.Name != "",
		Mode:        n.cfg.Mode,
		APIAddress:  n.cfg.APIAddress,
		RaftAddress: n.cfg.RaftAddress,
		Version:     n.cfg.Version,
	}
	if p.Name == "" {
		p.Name = HostName()
	}
	if p.Mode == "" {
		p.Mode = store.ModeFull
	}
	return p
}

// HostName returns the default name of a member.
func HostName() string {
	if name, err := os.Hostname(); err == nil {
		if _, number := naming.Number(name); number {
			return "host-" + name
		}
		return name
	}
	return "muster"
}

func (n *Node) found() (*datadir.Node, error) {
	plan, founding := n.plan(), n.cfg.Founding.orDefault()
	plan.OverlayCIDR, plan.OverlaySlice, plan.Datacenter = founding.OverlayCIDR, founding.OverlaySlice, founding.Datacenter
	var err error
	if plan.HTTPCACert, plan.HTTPCAKey, err = founding.readCA(); err != nil {
		return nil, err
	}
	self, err := datadir.Found(n.dir, plan, time.Now())
	if err != nil {
		return nil, err
	}
	n.cfg.Say("founding cluster %s; the administrator's token is in %s", self.ClusterID, n.dir.AdminFile())
	return self, nil
}

// again starts an existing member, with its present addresses.
func (n *Node) again(ctx context.Context, known *datadir.Node) (self *datadir.Node, err error) {
	if err := n.dir.CheckRemoved(known); err != nil {
		return nil, err
	}
	if err := n.dir.CheckLog(known); err != nil {
		return nil, err
	}
	if err := checkSameCluster(known, n.cfg.Join); err != nil {
		return nil, err
	}
	self = known
	if n.cfg.Rejoin {
		if self, err = n.join(ctx, known); err != nil {
			return nil, err
		}
	}
	if err := n.checkFixed(); err != nil {
		return nil, err
	}
	n.warnCA()
	self.Former = known.RaftAddress
	self.APIAddress, self.RaftAddress = n.cfg.APIAddress, n.cfg.RaftAddress
	return self, nil
}

// readCA reads the operator's CA for the founding, if any.
func (f Founding) readCA() (cert, key []byte, err error) {
	if f.CACert == "" {
		return nil, nil, nil
	}
	if cert, err = os.ReadFile(f.CACert); err != nil {
		return nil, nil, fmt.Errorf("--http-ca-cert cannot be read: %w", err)
	}
	if key, err = os.ReadFile(f.CAKey); err != nil {
		return nil, nil, fmt.Errorf("--http-ca-key cannot be read: %w", err)
	}
	return cert, key, nil
}

// checkFixed compares what was fixed at the founding of the cluster, by this member's mirror, with the configuration.
func (n *Node) checkFixed() error {
	is, err := store.MirrorFounding(filepath.Join(n.dir.Path, "muster.db"))
	if err != nil { // no mirror yet, or a damaged one: checked again later
		return nil
	}
	said := n.cfg.Founding
	slice := ""
	if said.OverlaySlice != 0 {
		slice = fmt.Sprint(said.OverlaySlice)
	}
	for _, x := range []struct{ flag, said, is string }{
		{"datacenter", said.Datacenter, is.Datacenter},
		{"overlay-cidr", said.OverlayCIDR, is.OverlayCIDR},
		{"overlay-slice", slice, is.OverlaySlice},
	} {
		if x.said != "" && x.said != x.is && x.is != "" {
			return fmt.Errorf("--%s %s is not what this cluster has, %s, which is fixed when it is founded: leave the flag out",
				x.flag, x.said, x.is)
		}
	}
	return nil
}

// warnCA warns when the operator's CA is no longer the cluster's. That does not prevent the start: the cluster may have
// rotated it since it was founded.
func (n *Node) warnCA() {
	if n.cfg.Founding.CACert == "" {
		return
	}
	own, _, err := n.cfg.Founding.readCA()
	if same, e := n.dir.HasCA(own); errors.Join(err, e) != nil || !same {
		n.cfg.Say("warning: --http-ca-cert is for the founding only and is not what this cluster uses now; \"muster ca " +
			"rotate --cert FILE --key FILE\" brings another CA, and the flag can be left out")
	}
}

// differs returns a channel with the error of checkFixed. A member that has just joined checks as soon as it has a
// mirror.
func (n *Node) differs(ctx context.Context) <-chan error {
	result := make(chan error, 1)
	n.servers.Go(func() {
		for ctx.Err() == nil {
			changed := n.store.Mirror.Changed()
			if n.store.Mirror.Revision() > 0 {
				if err := n.checkFixed(); err != nil {
					result <- err
				}
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	return result
}
