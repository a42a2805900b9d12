package backup

import (
	"fmt"
	"slices"
	"time"

	"muster/store"
)

// State is the input of a decision.
type State struct {
	Now      time.Time
	Settings store.BackupSettings
	Backups  []store.Backup // newest first
	Members  map[uint64]bool
}

// Step is the next thing to do.
type Step struct {
	Resume *store.Backup // continue this one first
	Due    bool          // otherwise begin one
	Delete []Deletion
}

// Deletion is a backup that is no longer kept.
type Deletion struct {
	store.Backup
	Why string
}

const (
	keptFailures = 10 // records of failed backups
	firstRetry   = time.Minute
	longestRetry = time.Hour
	clockSlack   = time.Minute // allowed difference between clocks of leaders
)

// Decide returns the next step. It is a pure function.
func Decide(s State) (step Step) {
	step.Resume = s.Active()
	next, planned := s.Next()
	step.Due = step.Resume == nil && planned && !s.Now.Before(next)
	step.Delete = s.deletions()
	return step
}

// Active returns the backup in progress, or nil.
func (s State) Active() *store.Backup {
	i := slices.IndexFunc(s.Backups, func(b store.Backup) bool { return b.Active() })
	if i < 0 {
		return nil
	}
	return &s.Backups[i]
}

// Problems returns what an operator should correct, a sentence each.
func (s State) Problems() (list []string) {
	o := s.Settings
	good := s.LastGood()
	switch {
	case o.Interval == 0 && len(s.Backups) == 0:
		return nil
	case o.Interval == 0:
	case o.Directory == "":
		list = append(list, "backup.interval is set and backup.directory is not: nothing is saved")
	case good == nil:
		list = append(list, "there is no good backup yet")
	case s.Now.Sub(good.StartedAt) > 2*o.Interval:
		list = append(list, fmt.Sprintf("the last good backup was begun %v ago, and the interval is %v",
			s.Now.Sub(good.StartedAt).Round(time.Second), o.Interval))
	}
	if last := s.Last(); last != nil && last.State == store.BackupFailed {
		list = append(list, "the last backup failed: "+last.Reason)
	}
	if o.Interval > 0 && o.Directory != "" && len(o.Recipients) == 0 {
		list = append(list, "backup.recipients is not set: when all members are lost, "+
			"nobody can open what is sealed in a backup")
	}
	return list
}

// Last returns the newest finished backup, or nil.
func (s State) Last() *store.Backup {
	i := slices.IndexFunc(s.Backups, func(b store.Backup) bool { return !b.Active() })
	if i < 0 {
		return nil
	}
	return &s.Backups[i]
}

// LastGood returns the newest good backup whose bucket or member still exists, or nil.
func (s State) LastGood() *store.Backup {
	i := slices.IndexFunc(s.Backups, s.present)
	if i < 0 {
		return nil
	}
	return &s.Backups[i]
}

func (s State) present(b store.Backup) bool {
	return b.Present(s.Members)
}

// Next returns when the next scheduled backup is due; planned is false without a schedule. After failures it is
// repeated after one minute, two, four and so on, at most the interval or an hour.
func (s State) Next() (at time.Time, planned bool) {
	o := s.Settings
	if o.Interval == 0 || o.Directory == "" {
		return at, false
	}
	failures := 0
	var failed time.Time
	for _, b := range s.Backups {
		if s.present(b) {
			at = b.StartedAt.Add(o.Interval)
			if b.StartedAt.After(s.Now.Add(clockSlack)) { // a leader's clock was wrong
				at = s.Now
			}
			break
		}
		if b.State == store.BackupFailed {
			if failures++; failures == 1 {
				failed = b.FinishedAt
			}
		}
	}
	if failures > 0 && !failed.After(s.Now.Add(clockSlack)) {
		retry := failed.Add(min(firstRetry<<min(failures-1, 10), longestRetry, o.Interval))
		if retry.After(at) {
			at = retry
		}
	}
	return at, true
}

// deletions lists the backups to delete: good ones beyond the number or the age, never the last one that exists, and
// records of failures beyond the newest few.
func (s State) deletions() (list []Deletion) {
	o := s.Settings
	good, bad := 0, 0
	last := s.LastGood()
	for i := range s.Backups {
		b := &s.Backups[i]
		switch b.State {
		case store.BackupGood:
			good++
			why := ""
			switch {
			case b == last:
			case good > o.Keep:
				why = fmt.Sprintf("there are %d newer ones", o.Keep)
			case o.KeepFor > 0 && s.Now.Sub(b.FinishedAt) > o.KeepFor:
				why = fmt.Sprintf("it is older than %v", o.KeepFor)
			}
			if why != "" {
				list = append(list, Deletion{*b, why})
			}
		case store.BackupFailed:
			if bad++; bad > keptFailures {
				list = append(list, Deletion{*b, "it failed, and so did newer ones"})
			}
		}
	}
	slices.Reverse(list) // oldest first
	return list
}
