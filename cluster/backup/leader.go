package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster/store"
)

// Leader is the leader's part: it makes members write backups when they are due or requested, and deletes old ones.
type Leader struct {
	Config
	Maker *Maker // this member's own
	// Candidates lists the members that may write a backup now, best first; nil while that is unknown.
	Candidates func() []uint64

	later map[string]time.Time // backups that could not be deleted, by id, and when to try again
}

const (
	lookEvery   = time.Second
	deleteLater = time.Minute
	// mostAsked bounds how many members are asked for one backup.
	mostAsked = 32
)

var errTooYoung = errors.New("backup: the health of the members is not known yet")

// Run makes and deletes backups until ctx ends.
func (l *Leader) Run(ctx context.Context) {
	l.later = map[string]time.Time{}
	for {
		if err := l.round(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotLeader) &&
			!errors.Is(err, store.ErrOldSchema) && !errors.Is(err, errTooYoung) {
			l.Logger.Warn("backups", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
		}
	}
}

func (l *Leader) actor() store.Actor { return store.Actor{Name: "autopilot", NodeID: l.Store.NodeID()} }

// Look reads the input of a decision.
func Look(ctx context.Context, st *store.Store, c store.Consistency, now time.Time) (s State, err error) {
	s = State{Now: now, Members: map[uint64]bool{}}
	if s.Settings, err = st.Backups.Settings(ctx, c); err != nil {
		return s, err
	}
	if s.Backups, err = st.Backups.List(ctx, c); err != nil {
		return s, err
	}
	members, err := st.Members.IDs(ctx, c)
	for _, id := range members {
		s.Members[id] = true
	}
	return s, err
}

func (l *Leader) round(ctx context.Context) error {
	s, err := Look(ctx, l.Store, store.AsLeader, time.Now())
	if err != nil {
		return err
	}
	step := Decide(s)
	switch {
	case step.Resume != nil:
		return l.carry(ctx, *step.Resume, s)
	case step.Due:
		b, err := l.Store.Backups.Open(ctx, l.actor(), store.BackupBySchedule)
		if err != nil {
			return err
		}
		return l.carry(ctx, b, s)
	case len(step.Delete) > 0:
		return l.prune(ctx, step.Delete)
	}
	return nil
}

// carry asks one member after the other until one has made the backup or none is left.
func (l *Leader) carry(ctx context.Context, b store.Backup, s State) error {
	var reasons []string
	if b.Reason != "" {
		reasons = append(reasons, b.Reason)
	}
	given := slices.Clone(b.Tried)
	for {
		if b.NodeID == 0 || slices.Contains(given, b.NodeID) {
			why, err := l.assign(ctx, &b, s.Settings, given, reasons)
			if err != nil {
				return err
			}
			if reasons = append(reasons, why...); b.NodeID == 0 || slices.Contains(given, b.NodeID) {
				b.State, b.Reason, b.Tried = store.BackupFailed, strings.Join(reasons, "; "), given
				return l.finish(ctx, b, s)
			}
		}
		out, err := l.attempt(ctx, b, s)
		if err != nil {
			return err
		}
		if out.Reason == "" {
			b.State, b.Size, b.SHA256, b.Revision = store.BackupGood, out.Size, out.SHA256, out.Revision
			b.Reason, b.Tried = strings.Join(reasons, "; "), given
			return l.finish(ctx, b, s)
		}
		reasons = append(reasons, fmt.Sprintf("node %d: %s", b.NodeID, out.Reason))
		given = append(given, b.NodeID)
	}
}

// assign gives the backup to the first candidate that can write to the target, and returns why others cannot. Without
// such a candidate the backup stays as it is.
func (l *Leader) assign(ctx context.Context, b *store.Backup, o store.BackupSettings, given []uint64,
	reasons []string) (why []string, err error) {
	if o.Directory == "" {
		return []string{store.SettingBackupDirectory + " is not set"}, nil
	}
	a, err := l.access(ctx, o.Directory, o)
	if err != nil {
		return []string{err.Error()}, nil
	}
	asked := 0
	candidates := l.spread(ctx)
	if candidates == nil {
		return nil, errTooYoung
	}
	for _, id := range candidates {
		if slices.Contains(given, id) {
			continue
		}
		if asked++; asked > mostAsked {
			break
		}
		out := l.ask(ctx, id, checkWithin+time.Second, pathCheck, order{Target: o.Directory, S3: a})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if out.Reason != "" {
			why = append(why, fmt.Sprintf("node %d: %s", id, out.Reason))
			continue
		}
		b.NodeID, b.Target, b.Recipients, b.State = id, o.Directory, len(o.Recipients), store.BackupRunning
		b.Name = l.name(b, o)
		b.Reason = strings.Join(append(slices.Clone(reasons), why...), "; ")
		return why, l.Store.Backups.Assign(ctx, l.actor(), *b)
	}
	return why, nil
}

// name returns muster-CLUSTER-TIME-ID: several clusters may share a directory.
func (l *Leader) name(b *store.Backup, o store.BackupSettings) string {
	suffix := ".tgz"
	if len(o.Recipients) > 0 {
		suffix = encryptedSuffix
	}
	return fmt.Sprintf("muster-%.8s-%s-%s%s", l.Transport.ClusterID(), b.StartedAt.UTC().Format("20060102T150405Z"),
		b.ID[len(b.ID)-12:], suffix)
}

// spread orders the candidates by the age of their last backup, the oldest first and the leader last: backups on one
// machine are lost with it.
func (l *Leader) spread(ctx context.Context) []uint64 {
	list := l.Candidates()
	backups, err := l.Store.Backups.List(ctx, store.AsLeader)
	if err != nil {
		return list
	}
	return Spread(list, l.Store.NodeID(), backups)
}

// Spread is the pure part of spread. backups are newest first.
func Spread(candidates []uint64, leader uint64, backups []store.Backup) []uint64 {
	last := func(id uint64) uint64 {
		for _, b := range backups {
			if b.State == store.BackupGood && b.NodeID == id {
				return b.CreatedRev
			}
		}
		return 0
	}
	list := slices.Clone(candidates)
	slices.SortStableFunc(list, func(a, b uint64) int {
		switch {
		case a == leader:
			return 1
		case b == leader:
			return -1
		case last(a) < last(b):
			return -1
		case last(a) > last(b):
			return 1
		}
		return 0
	})
	return list
}

// attempt makes a member write the backup and waits for it. If the member stops answering, it waits until the member
// has certainly given up.
func (l *Leader) attempt(ctx context.Context, b store.Backup, s State) (outcome, error) {
	if !s.Members[b.NodeID] {
		return failed(errors.New("it is no longer a member")), nil
	}
	a, err := l.access(ctx, b.Target, s.Settings)
	if err != nil {
		return failed(err), nil
	}
	o := order{
		ID:         b.ID,
		Name:       b.Name,
		Target:     b.Target,
		Recipients: s.Settings.Recipients,
		Revision:   l.Store.Revision(),
		S3:         a,
	}
	var lost time.Time
	for {
		out, err := l.make(ctx, b.NodeID, o)
		switch {
		case ctx.Err() != nil:
			return outcome{}, ctx.Err()
		case err == nil:
			return out, nil
		case lost.IsZero():
			lost = time.Now()
			l.Logger.Warn("a member that makes a backup does not answer", "node", b.NodeID, "backup", b.ID, "err", err)
		case time.Since(lost) > takeOverAfter:
			return failed(fmt.Errorf("it does not answer: %w", err)), nil
		}
		select {
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// access returns the access to a target; nil for a directory.
func (l *Leader) access(ctx context.Context, target string, o store.BackupSettings) (*access, error) {
	if !store.InBucket(target) {
		return nil, nil
	}
	return l.Maker.accessBy(ctx, o)
}

// discard deletes the remains of a backup at its target: through the member that has them, or through any member for a
// bucket.
func (l *Leader) discard(ctx context.Context, id uint64, b *store.Backup, s State) outcome {
	a, err := l.access(ctx, b.Target, s.Settings)
	if err != nil {
		return failed(err)
	}
	if a != nil && !s.Members[id] {
		id = l.Store.NodeID()
	}
	return l.ask(ctx, id, checkWithin+time.Second, pathRemove, order{Target: b.Target, Name: b.Name, S3: a})
}

// finish records the end of a backup and deletes what members that were given up may have left.
func (l *Leader) finish(ctx context.Context, b store.Backup, s State) error {
	if err := l.Store.Backups.Finish(ctx, l.actor(), b); err != nil {
		return err
	}
	level := l.Logger.Info
	if b.State == store.BackupFailed {
		level = l.Logger.Warn
	}
	level("backup", "id", b.ID, "state", b.State, "node", b.NodeID, "file", b.Path(), "bytes", b.Size, "reason", b.Reason)
	switch {
	case b.Name == "":
	case !store.InBucket(b.Target):
		for _, id := range b.Tried {
			if id != b.NodeID {
				l.discard(ctx, id, &b, s)
			}
		}
	case b.State == store.BackupFailed: // one name for all of them
		l.discard(ctx, b.NodeID, &b, s)
	}
	return nil
}

// prune deletes the files of old backups, then their records. It asks a holder that does not answer again later, unless
// it is no longer a member.
func (l *Leader) prune(ctx context.Context, list []Deletion) error {
	if err := l.Store.Confirm(ctx); err != nil { // a deposed leader must not delete anything
		return err
	}
	for _, d := range list {
		if time.Now().Before(l.later[d.ID]) {
			continue
		}
		s, err := Look(ctx, l.Store, store.AsLeader, time.Now())
		if err != nil {
			return err
		}
		if (s.Members[d.NodeID] || store.InBucket(d.Target)) && d.Name != "" {
			out := l.discard(ctx, d.NodeID, &d.Backup, s)
			if out.Reason != "" {
				if l.later[d.ID].IsZero() {
					l.Logger.Warn("a backup that is not kept cannot be deleted", "file", d.Path(), "node", d.NodeID,
						"reason", out.Reason)
				}
				l.later[d.ID] = time.Now().Add(deleteLater)
				continue
			}
		}
		delete(l.later, d.ID)
		if err := l.Store.Backups.Forget(ctx, l.actor(), d.ID, d.Why); err != nil {
			return err
		}
	}
	return nil
}
