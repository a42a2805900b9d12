package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"

	"muster/store"
)

// proveFile verifies a file that was just written.
func (m *Maker) proveFile(ctx context.Context, f file, proof *age.X25519Identity, want *outcome) error {
	r, err := f.Reread()
	if err != nil {
		return err
	}
	var with []age.Identity
	if proof != nil {
		with = append(with, proof)
	}
	return m.prove(ctx, r, with, proof != nil, want.Size, want.SHA256)
}

// prove reads a file to its end and compares its digest. If it can decrypt the file, it also restores it into a scratch
// database.
func (m *Maker) prove(ctx context.Context, r io.Reader, with []age.Identity, encrypted bool, size int64,
	sha string) error {
	sum, n := sha256.New(), &counter{}
	raw := io.TeeReader(r, io.MultiWriter(sum, n))
	if !encrypted || len(with) > 0 {
		in := raw
		var err error
		if encrypted {
			if in, err = age.Decrypt(raw, with...); err != nil {
				return err
			}
		}
		if err := m.rehearse(ctx, in); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return err
	}
	if n.n != size {
		return fmt.Errorf("it has %d bytes, and %d were written", n.n, size)
	}
	if hex.EncodeToString(sum.Sum(nil)) != sha {
		return errors.New("its digest is not that of what was written")
	}
	return nil
}

func (m *Maker) rehearse(ctx context.Context, r io.Reader) error {
	a, err := m.archives.Read(ctx, r, store.ArchiveLimits{State: store.MaxArchiveState, Room: m.Room})
	if err != nil {
		return err
	}
	defer func() {
		if err := a.Close(); err != nil {
			m.Logger.Warn("the files of a backup that was restored on trial were not removed", "err", err)
		}
	}()
	return m.archives.Rehearse(ctx, a)
}

// check returns why no file can be kept at a target; an empty outcome if one can. It blocks for at most checkWithin.
func (m *Maker) check(ctx context.Context, o order) outcome {
	return m.briefly(ctx, checkWithin, func(ctx context.Context) error {
		t, err := m.open(ctx, o)
		if err != nil {
			return err
		}
		defer t.Close()
		return t.check()
	})
}

// remove deletes a file.
func (m *Maker) remove(ctx context.Context, o order) outcome {
	if !validName(o.Name) {
		return failed(errors.New("the name of the file is not one of a backup"))
	}
	return m.briefly(ctx, checkWithin, func(ctx context.Context) error {
		t, err := m.open(ctx, o)
		if err != nil {
			return err
		}
		defer t.Close()
		return t.Remove(o.Name)
	})
}

// briefly runs f, but does not wait longer than d.
func (m *Maker) briefly(ctx context.Context, d time.Duration, f func(context.Context) error) outcome {
	within, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f(within) }()
	var err error
	select {
	case err = <-done:
	case <-within.Done():
	}
	switch {
	case ctx.Err() != nil:
		return failed(ctx.Err())
	case within.Err() != nil:
		return failed(fmt.Errorf("the target has not answered for %v", d))
	case err != nil:
		return failed(err)
	}
	return outcome{}
}

// verify reads a file again: its digest and, if it is not encrypted, its content.
func (m *Maker) verify(ctx context.Context, o order) outcome {
	r, size, err := m.read(ctx, o)
	if err != nil {
		return outcome{Reason: err.Error(), Unread: !errors.Is(err, errNoFile)}
	}
	defer r.Close()
	in := &troubled{Reader: r}
	if size != o.Size {
		return failed(fmt.Errorf("it has %d bytes, and %d were written", size, o.Size))
	}
	if err := m.prove(ctx, in, nil, strings.HasSuffix(o.Name, encryptedSuffix), o.Size, o.SHA256); err != nil {
		return outcome{Reason: err.Error(), Unread: in.err != nil && store.InBucket(o.Target)}
	}
	return outcome{}
}

// troubled records that a read has failed, which says nothing about the content.
type troubled struct {
	io.Reader
	err error
}

func (t *troubled) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// read opens a file.
func (m *Maker) read(ctx context.Context, o order) (io.ReadCloser, int64, error) {
	if !validName(o.Name) {
		return nil, 0, errNoFile
	}
	t, err := m.open(ctx, o)
	if err != nil {
		return nil, 0, err
	}
	defer t.Close()
	return t.Open(o.Name)
}
