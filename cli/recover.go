package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"muster/cluster/datadir"
	"muster/store"
)

func newRecoverCommand(env *environment) *cobra.Command {
	group := newGroup("recover", "Recover a cluster that has lost its majority for good, or its last token")
	group.Long = group.Short + `.

The last management token is lost: "muster recover token --data DIR" on the machine of any member.

The majority is lost: stop every survivor. On each: "muster recover plan --data DIR". On the one with the newest log:
"muster recover apply --data DIR --plan FILE…" with the plans of the others (-o json). Carry its bundle to the others:
"muster recover adopt --data DIR BUNDLE". Start them all. docs/recovery.md describes each step.`
	group.PersistentFlags().Var(&peerFlag{}, "peer",
		"present address of another member's cluster listener, if it has moved; repeatable (or "+
			"MUSTER_PEERS); apply keeps it for the next start")
	group.AddCommand(newRecoverPlanCommand(env), newRecoverApplyCommand(env), newRecoverAdoptCommand(env),
		newRecoverTokenCommand(env))
	return group
}

// withStopped opens the data directory of a stopped member.
func (e *environment) withStopped(cmd *cobra.Command, f func(*datadir.Dir, *datadir.RecoveryPlan) error) error {
	if e.data == "" {
		return usagef(cmd, "--data is missing")
	}
	if _, err := os.Stat(filepath.Join(e.data, "node.json")); err != nil {
		return fmt.Errorf("%s is not the data directory of a member: it has no node.json", e.data)
	}
	d, err := datadir.Open(e.data)
	if err != nil {
		return err
	}
	defer d.Close()
	var peers []datadir.Place
	if f, ok := cmd.Flag("peer").Value.(*peerFlag); ok {
		if err := fromEnvironment(cmd, cmd.Flags().Lookup("peer")); err != nil {
			return err
		}
		peers = f.list
	}
	p, err := datadir.PlanRecovery(cmd.Context(), d, peers...)
	if err != nil {
		return err
	}
	return f(d, p)
}

func newRecoverPlanCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "plan --data DIR",
		Short: "Show where the log of a stopped member ends, and which other members answer",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return env.withStopped(cmd, func(_ *datadir.Dir, p *datadir.RecoveryPlan) error {
				if env.output == "json" {
					return env.json(p)
				}
				env.say("node %d (%s) of cluster %s: the log ends with %s; the mirror has revision %d", p.NodeID,
					p.Name, p.ClusterID, p.Last, p.Revision)
				env.say("if no other survivor has a newer log: muster recover apply --data %s "+
					"--survivor NODE:TERM:INDEX (for each other one)", env.data)
				env.say("to give it to the survivor that has: --survivor %d:%d:%d", p.NodeID, p.Last.Term, p.Last.Index)
				if err := p.CheckSchema(); err != nil {
					env.say("no recovery is possible here: %v", err)
				}
				for _, m := range p.Members {
					if m.Answers {
						env.say("no recovery is possible here: %v",
							env.explainRunning(&datadir.RunningError{Member: m}))
						break
					}
				}
				return list(env, p.Members, []string{"NODE", "NAME", "ROLE", "ADDRESS", "RUNNING", "SAYS"},
					func(m datadir.RecoveryMember) []any {
						return []any{m.NodeID, m.Name, string(m.Role), m.RaftAddress, m.Answers, m.Said}
					})
			})
		},
	}
}

// recovery is one run of "muster recover apply".
type recovery struct {
	survivors, plans []string
	bundle           string
	alone, dryRun    bool
	yes              bool
}

func newRecoverApplyCommand(env *environment) *cobra.Command {
	var r recovery
	cmd := &cobra.Command{
		Use:   "apply --data DIR",
		Short: "Make this stopped member and the other survivors the whole cluster; once, on the one with the newest log",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (len(r.survivors)+len(r.plans) == 0) == !r.alone {
				return usagef(cmd,
					"name the other survivors with --survivor or --plan, or give --alone if there are no others")
			}
			return env.withStopped(cmd, func(d *datadir.Dir, p *datadir.RecoveryPlan) error {
				others, err := otherSurvivors(cmd, p, r.survivors, r.plans)
				if err != nil {
					return err
				}
				if err := p.Check(others); err != nil {
					return env.explainRunning(err)
				}
				env.showRecovery(p, p.Voters(others))
				for _, text := range p.Behind(others) {
					env.say("%s", text)
				}
				if r.dryRun {
					return env.done("this was a dry run: nothing was changed")
				}
				return r.apply(cmd, env, d, p, others)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&r.survivors, "survivor", nil, "another survivor, NODE:TERM:INDEX from its plan; repeatable")
	flags.StringArrayVar(&r.plans, "plan", nil,
		"file with the plan of another survivor (recover plan -o json); repeatable")
	flags.BoolVar(&r.alone, "alone", false, "there is no other survivor")
	flags.StringVar(&r.bundle, "bundle", "", "file for the bundle (default: muster-recovery-node-N.tar.gz here)")
	flags.BoolVar(&r.dryRun, "dry-run", false, "print the steps and change nothing")
	return yesFlag(cmd, &r.yes)
}

// showRecovery prints what becomes of each member when voters are the only voters.
func (e *environment) showRecovery(p *datadir.RecoveryPlan, voters []uint64) {
	for _, m := range p.Members {
		becomes := "is lost: keeps its row, leaves Raft"
		switch {
		case slices.Contains(voters, m.NodeID):
			becomes = "becomes a voter"
		case m.Role == store.RoleNone:
			becomes = "stays as it is"
		}
		e.say("node %d (%s): %s", m.NodeID, m.Name, becomes)
	}
}

// apply asks for confirmation, checks again that no other member runs, and changes the directory.
func (r *recovery) apply(cmd *cobra.Command, env *environment, d *datadir.Dir, p *datadir.RecoveryPlan,
	others []datadir.Survivor) error {
	if err := env.confirm(r.yes,
		"force this configuration upon %s? The lost members must never be started again", env.data); err != nil {
		return err
	}
	if err := p.AskAgain(cmd.Context(), d, others); err != nil { // the answer may have taken long
		return env.explainRunning(err)
	}
	if peers := cmd.Flag("peer").Value.(*peerFlag); len(peers.list) > 0 {
		if err := d.KeepPlaces(peers.list, time.Now()); err != nil {
			return err
		}
	}
	done, err := datadir.ApplyRecovery(d, p, others, time.Now())
	if err != nil {
		return err
	}
	if r.alone {
		return env.done("done; start this member, then remove the lost ones (muster member remove ID --force)")
	}
	bundle := r.bundle
	if bundle == "" {
		bundle = fmt.Sprintf("muster-recovery-node-%d.tar.gz", p.NodeID)
	}
	if err := writeBundle(d, done, bundle); err != nil {
		return err
	}
	return env.done("done; now on each other survivor: muster recover adopt --data DIR %s; then start them all", bundle)
}

// explainRunning adds to a refusal because of running members the remedy for the usual cause: this member was left
// behind.
func (e *environment) explainRunning(err error) error {
	var running *datadir.RunningError
	if !errors.As(err, &running) {
		return err
	}
	return fmt.Errorf("%w\nif the others work and only this member is left out, let it rejoin instead: "+
		"muster serve --data %s (and its other flags) --rejoin --join TOKEN\n"+
		"with a token that muster join-token create makes on a working member", err, e.data)
}

func otherSurvivors(cmd *cobra.Command, p *datadir.RecoveryPlan, texts, files []string) (list []datadir.Survivor,
	err error) {
	for _, text := range texts {
		var s datadir.Survivor
		var rest string
		n, _ := fmt.Sscanf(text, "%d:%d:%d%s", &s.NodeID, &s.Last.Term, &s.Last.Index, &rest)
		if n != 3 {
			return nil, usagef(cmd, "--survivor must be NODE:TERM:INDEX, not %q", text)
		}
		list = append(list, s)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var other datadir.RecoveryPlan
		if err := json.Unmarshal(data, &other); err != nil || other.NodeID == 0 {
			return nil, fmt.Errorf("%s is not the output of muster recover plan -o json", name)
		}
		if other.ClusterID != p.ClusterID {
			return nil, fmt.Errorf("%s is of cluster %s and this is a member of cluster %s", name, other.ClusterID,
				p.ClusterID)
		}
		list = append(list, datadir.Survivor{NodeID: other.NodeID, Last: other.Last, Schema: other.Schema,
			Known: other.Known})
	}
	return list, nil
}

func writeBundle(d *datadir.Dir, r *datadir.Recovery, name string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = datadir.WriteBundle(d, r, f)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func newRecoverAdoptCommand(env *environment) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "adopt --data DIR BUNDLE",
		Short: "Give this stopped survivor the log of the recovered one",
		Args:  exactly("BUNDLE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return env.withStopped(cmd, func(d *datadir.Dir, p *datadir.RecoveryPlan) error {
				if err := env.confirm(yes, "replace the Raft log of %s by that of %s? The old log is kept next to it",
					env.data, args[0]); err != nil {
					return err
				}
				r, err := datadir.AdoptRecovery(d, p, args[0], time.Now())
				if err != nil {
					return err
				}
				return env.done("node %d has the log of node %d; start it", p.NodeID, r.Template)
			})
		},
	}
	return yesFlag(cmd, &yes)
}
