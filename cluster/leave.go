package cluster

import (
	"errors"
	"net/http"

	"muster/cluster/transport"
)

// checkRemoved looks at the answer of another member for the word that this one is no longer known.
func (c *Cluster) checkRemoved(err error) {
	var status *transport.StatusError
	if errors.As(err, &status) && status.Status == http.StatusGone {
		c.leave(status.Removed)
	}
}

// leave ends this member; for good when it was removed.
func (c *Cluster) leave(removed bool) {
	c.once.Do(func() {
		if removed {
			n, err := c.Dir.Node()
			if err == nil && n != nil {
				err = c.Dir.MarkRemoved(n)
			}
			if err != nil {
				c.log.Warn("the removal could not be noted in the data directory", "err", err)
			}
		}
		close(c.removed)
	})
}
