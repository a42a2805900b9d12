package datadir

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"muster/internal/sumtar"
	"muster/store"
)

// dqliteLock belongs to a running process, not to the state.
const dqliteLock = "dqlite-lock"

func raftFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Type().IsRegular() && e.Name() != dqliteLock {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return writeFrom(to, src)
}

func writeFrom(name string, r io.Reader) error {
	dst, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, r)
	if err == nil {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// WriteBundle packs the directory in which a recovery was applied, for the other survivors: recovery.json, the files of
// the Raft directory below raft/, and the checksums, see package sumtar.
func WriteBundle(d *Dir, r *Recovery, w io.Writer) error {
	out, err := sumtar.NewWriter(w, r.At)
	if err != nil {
		return err
	}
	if err := out.AddJSON(recoveryFile, r); err != nil {
		return err
	}
	names, err := raftFiles(d.file(RaftDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == store.TrialFile { // it tells of this machine alone
			continue
		}
		f, err := os.Open(filepath.Join(d.file(RaftDir), name))
		if err != nil {
			return err
		}
		info, err := f.Stat()
		if err == nil {
			err = out.Add(RaftDir+"/"+name, info.Size(), f)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return out.Close()
}

// unpack stores one file of a bundle: a file of the Raft directory, the recovery, or the sums.
func unpack(name string, body io.Reader, dir string, r *Recovery, sums map[string]string) error {
	base, inside := strings.CutPrefix(name, RaftDir+"/")
	switch {
	case inside && base == filepath.Base(base) && base != "." && base != "..":
		return writeFrom(filepath.Join(dir, base), body)
	case name == recoveryFile:
		text, err := io.ReadAll(io.LimitReader(body, 1<<20))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, r)
	case name == sumtar.Sums:
		lines := bufio.NewScanner(body)
		for lines.Scan() {
			if sum, name, ok := strings.Cut(lines.Text(), "  "); ok {
				sums[name] = sum
			}
		}
		return lines.Err()
	}
	return errForeignFile
}

var errForeignFile = errors.New("it holds a file that does not belong to a bundle")

// readBundle unpacks the Raft directory of a bundle into dir and checks all sums.
func readBundle(bundle, dir string) (*Recovery, error) {
	f, err := os.Open(bundle)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	damaged := fmt.Errorf("%s is damaged, or is not a bundle of muster recover apply", bundle)
	zip, err := gzip.NewReader(f)
	if err != nil {
		return nil, damaged
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	var r Recovery
	have, want := map[string]string{}, map[string]string{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, damaged
		}
		sum := sha256.New()
		err = unpack(h.Name, io.TeeReader(in, sum), dir, &r, want)
		if errors.Is(err, errForeignFile) {
			return nil, damaged
		}
		if err != nil {
			return nil, errors.Join(damaged, err)
		}
		have[h.Name] = hex.EncodeToString(sum.Sum(nil))
	}
	if _, err := io.Copy(io.Discard, zip); err != nil || have[sumtar.Sums] == "" || r.ID == "" || len(have) < 3 {
		return nil, damaged
	}
	for name, sum := range want {
		if have[name] != sum {
			return nil, fmt.Errorf("%s is damaged: the checksum of %s does not match", bundle, name)
		}
	}
	if len(want) != len(have)-1 {
		return nil, damaged
	}
	return &r, syncDir(dir)
}
