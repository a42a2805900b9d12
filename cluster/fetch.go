package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"muster/cluster/transport"
)

const pathMirror = "/internal/mirror"

// FetchMirror copies the mirror of a Raft server into a file, if it is newer than a revision. Members choose different
// servers, so that they do not all load the leader.
func (c *Cluster) FetchMirror(ctx context.Context, after uint64, path string) (newer bool, err error) {
	members := c.knownMembers(ctx)
	for i := range members {
		id := members[(int(c.Store.NodeID()%uint64(len(members)))+i)%len(members)]
		if newer, err = c.fetchFrom(ctx, id, after, path); err == nil {
			return newer, nil
		}
	}
	return false, err
}

func (c *Cluster) fetchFrom(ctx context.Context, id, after uint64, path string) (bool, error) {
	resp, err := c.Transport.Get(ctx, id, fmt.Sprintf("%s?after=%d", pathMirror, after))
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return false, nil
	}
	if resp.StatusCode != http.StatusOK {
		return false, &transport.StatusError{NodeID: id, Status: resp.StatusCode}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(f, resp.Body); err != nil {
		f.Close()
		return false, err
	}
	return true, f.Close()
}

func (c *Cluster) serveMirror(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	f, err := os.Open(c.Store.Mirror.Path())
	if err != nil || c.Store.Mirror.Revision() <= after || c.Store.Outside() {
		if err == nil {
			f.Close()
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/vnd.sqlite3")
	_, _ = io.Copy(w, f)
}
