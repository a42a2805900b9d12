package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"muster/client"
)

// formed blocks until all nodes members are alive and enough of them vote.
func (d *devCluster) formed(ctx context.Context, c *client.Client, nodes int) error {
	want := min(nodes, 5)
	if want%2 == 0 {
		want--
	}
	for {
		voters, alive := 0, 0
		members, err := c.Members(ctx)
		for _, m := range members {
			if m.Suffrage == "voter" {
				voters++
			}
			if m.Status == "alive" {
				alive++
			}
		}
		if err == nil && voters >= want && alive >= nodes {
			d.step("%d members are ready, %d of them voters", alive, voters)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster was not complete in time (%d members alive, %d voters); the logs are %s",
				alive, voters, filepath.Join(d.data, "*", devLog))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// welcome says where the cluster is; first is a member that is there.
func (d *devCluster) welcome(ctx context.Context, c *client.Client, first int) error {
	members, err := c.Members(ctx)
	if err != nil {
		return err
	}
	d.env.say("")
	if err := printMembers(d.env, members); err != nil {
		return err
	}
	data := ""
	if filepath.Clean(d.data) != "data" {
		data = " --data " + d.dir(first)
	}
	d.env.say(`
API:          https://127.0.0.1:%d (CA %s), its page at /ui/
admin token:  %s
logs:         %s

Try next, in another shell:
  ./muster members%s
  sqlite3 %s 'select * from v_members'
  ./muster join-token create%s

Ctrl-C stops the cluster; the next start resumes it.`,
		d.apiPort+first-1, filepath.Join(d.dir(first), "ca.crt"), filepath.Join(d.dir(1), "admin.token"),
		filepath.Join(d.data, "*", devLog), data, filepath.Join(d.dir(first), "muster.db"), data)
	return nil
}
