package cluster

import "muster/cluster/datadir"

// Disk returns what the last look has found.
func (k *keeper) Disk() datadir.Disk { return *k.disk.Load() }

// look looks once, and says so when that changes anything.
func (k *keeper) look() {
	before := k.Disk()
	free, total, err := datadir.StatDisk(k.Store.Dir())
	if err != nil {
		k.log.Debug("the disk could not be looked at", "err", err)
		return
	}
	before.Reserve = k.DiskReserve.Of(total)
	now := before.Next(free, total)
	k.disk.Store(&now)
	switch {
	case now.Low && !before.Low:
		k.log.Warn("low on disk space: leadership and vote go to other members where there are some; make room or add disk",
			"free", now.Free, "reserve", now.Reserve)
		k.Wake()
	case !now.Low && before.Low:
		k.log.Info("there is room on the disk again", "free", now.Free, "reserve", now.Reserve)
		k.Wake()
	}
}
