package cluster

import "muster/cluster/datadir"

// Disk returns what the last look has found.
func (c *Cluster) Disk() datadir.Disk { return *c.disk.Load() }

// lookAtDisk looks once, and says so when that changes anything.
func (c *Cluster) lookAtDisk() {
	before := c.Disk()
	free, total, err := datadir.StatDisk(c.Store.Dir())
	if err != nil {
		c.log.Debug("the disk could not be looked at", "err", err)
		return
	}
	before.Reserve = c.DiskReserve.Of(total)
	now := before.Next(free, total)
	c.disk.Store(&now)
	switch {
	case now.Low && !before.Low:
		c.log.Warn("low on disk space: leadership and vote go to other members where there are some; make room or add disk", "free", now.Free, "reserve", now.Reserve)
		c.wake()
	case !now.Low && before.Low:
		c.log.Info("there is room on the disk again", "free", now.Free, "reserve", now.Reserve)
		c.wake()
	}
}
