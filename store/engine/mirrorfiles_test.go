package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// oldCopies lists the open files of this process that have been replaced below a directory.
func oldCopies(dir string) (list []string) {
	files, _ := filepath.Glob("/proc/self/fd/*")
	for _, f := range files {
		if target, err := os.Readlink(f); err == nil && strings.HasPrefix(target, dir) &&
			strings.HasSuffix(target, "(deleted)") {
			list = append(list, target)
		}
	}
	return list
}

// TestOldMirrorsAreClosed: a mirror that was replaced is closed when its readers are gone: a copy that stays open takes
// the room of its file until the member ends.
func TestOldMirrorsAreClosed(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	e := c.leader()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = e.Read(bg, Consistency(Stale), func(v *View) error { _, err := noted(v, "x"); return err })
				}
			}
		})
	}
	for range 4 {
		turned := e.Mirror.Changed()
		if _, err := write(bg, e); err != nil {
			t.Fatal(err)
		}
		select {
		case <-turned:
		case <-time.After(10 * time.Second):
			t.Fatal("the mirror is not renewed")
		}
	}
	close(stop)
	wait.Wait()
	c.eventually("no old copy is open", func() error {
		if list := oldCopies(c.Dirs[1]); len(list) > 0 {
			return fmt.Errorf("%d are open: %v", len(list), list)
		}
		return nil
	})
}
