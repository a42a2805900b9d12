package autopilot

import "fmt"

// TargetVoters is the number of voters to promote up to: the largest odd number that exceeds neither the eligible
// members nor max, and at least 1.
func TargetVoters(eligible, max int) int { return oddFloor(min(eligible, max)) }

// FailureTolerance is how many more healthy voters may fail before a cluster of so many voters loses its majority.
func FailureTolerance(voters, healthy int) int { return max(0, healthy-majority(voters)) }

// CanRemove returns an error for a removal that would leave too few live voters for a majority. It uses the health in
// in.Previous (the leader is live while it can store), so it judges by one consistent round. A node that is unknown or
// has no vote can always be removed. Whether the leader may be removed is the decision of the caller.
func CanRemove(in Input, id uint64) error {
	voters, live, vote, alive := 0, 0, false, false
	for i := range in.Members {
		o := &in.Members[i]
		if o.Role != RoleVoter {
			continue
		}
		h := o.CannotStore == "" && (isLeader(&in, o) || in.Previous[o.NodeID].Healthy)
		voters++
		if h {
			live++
		}
		if o.NodeID == id {
			vote, alive = true, h
		}
	}
	if !vote {
		return nil
	}
	if voters == 1 {
		return fmt.Errorf("node %d is the only voter; a cluster cannot be without one", id)
	}
	voters--
	if alive {
		live--
	}
	if live < majority(voters) {
		return fmt.Errorf("without node %d only %d of %s would be live, and a majority needs %d", id, live,
			count(voters, "voter"), majority(voters))
	}
	return nil
}

func majority(voters int) int { return voters/2 + 1 }

// oddFloor returns the largest odd number up to n, at least 1.
func oddFloor(n int) int {
	if n < 1 {
		return 1
	}
	return n - 1 + n%2
}

// tally counts voters and healthy voters while a plan grows, so that each step considers the earlier ones.
type tally struct{ voters, healthy int }

// drop takes a vote away if the healthy voters are a majority of the rest.
func (t *tally) drop(healthy bool) bool {
	n := *t
	n.voters--
	if healthy {
		n.healthy--
	}
	if n.voters < 1 || n.healthy < majority(n.voters) {
		return false
	}
	*t = n
	return true
}
