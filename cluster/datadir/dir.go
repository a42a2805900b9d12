// Package datadir is the data directory of a member: the contents of its files, how they are made (founding, joining,
// recovery), and how they are checked while the member runs or not.
//
// It starts no process or goroutine that remains: a directory is opened, changed and closed. The Raft log and the
// mirror belong to package store.
package datadir

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"muster/certs"
	"muster/cluster/transport"
	"muster/store"
)

// Names of the files in a data directory. nodeFile is written last: a directory without it never took part in a
// cluster.
const (
	nodeFile      = "node.json"
	lockFile      = "lock"
	identityFile  = "node.key"
	adminFile     = "admin.token"
	httpCAFile    = "ca.crt"
	foundingFile  = "founding.json"
	tlsDir        = "tls"
	httpKey       = "tls/http.key"
	httpCert      = "tls/http.crt"
	transportKey  = "tls/transport.key"
	transportCert = "tls/transport.crt"
	transportCA   = "tls/transport-ca.crt"
	nodeTokenFile = "node.jwt"
	workloadsFile = "workloads.json"
)

// Node is what a member knows about itself before its database is open: the contents of DIR/node.json.
type Node struct {
	ClusterID   string  `json:"clusterId"`
	NodeID      uint64  `json:"nodeId"`
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	APIAddress  string  `json:"apiAddress"`
	RaftAddress string  `json:"raftAddress"`
	Others      []Place `json:"peers"` // when this member joined; the database is more recent

	// Former is the address of the cluster listener at the last start, if it was different.
	Former string `json:"-"`
}

// Place is an address of another member.
type Place struct {
	NodeID      uint64 `json:"nodeId"`
	RaftAddress string `json:"raftAddress"`
}

// Dir is the data directory of a member, locked for this process.
type Dir struct {
	Path string
	lock *os.File
	made bool // the directory was made by this process
}

// Open creates the directory if needed and locks it. Errors are sentences for the operator.
func Open(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, detachingDir, nodeFile)); err == nil {
		return nil, errDetaching
	}
	return open(path)
}

func open(path string) (*Dir, error) {
	_, err := os.Stat(path)
	d := &Dir{Path: path, made: errors.Is(err, fs.ErrNotExist)}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, dirError(path, err)
	}
	if _, err := os.Stat(d.file(nodeFile)); errors.Is(err, fs.ErrNotExist) {
		if err := d.checkUnused(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(d.file(tlsDir), 0o700); err != nil {
		return nil, dirError(path, err)
	}
	f, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, dirError(path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the data directory %s is in use by a running muster", path)
		}
		return nil, dirError(path, err)
	}
	// A process that was refused a moment ago has deleted its lock file.
	if same, err := sameFile(f, f.Name()); err != nil || !same {
		f.Close()
		return nil, fmt.Errorf("the data directory %s is in use by a muster that is ending", path)
	}
	d.lock = f
	return d, nil
}

func sameFile(f *os.File, path string) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(mine, there), err
}

func dirError(path string, err error) error {
	var at *fs.PathError
	if errors.As(err, &at) && errors.Is(err, fs.ErrPermission) && at.Path != path {
		if _, there := os.Lstat(at.Path); there == nil {
			return fmt.Errorf("%s cannot be used by this user: it may belong to another one, such as root, if a command was "+
				"run as root once; \"chown -R USER %s\" as root gives everything back", at.Path, path)
		}
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the data directory %s is not writable", path)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is not a directory", path)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("there is no space left for the data directory %s", path)
	default:
		return fmt.Errorf("the data directory %s cannot be used: %w", path, err)
	}
}

// Close releases the lock. It removes a directory that this process has made and left empty.
func (d *Dir) Close() error {
	giveBack(d.Path)
	if os.Remove(d.file(tlsDir)) == nil { // only when it is empty
		_ = os.Remove(d.file(lockFile))
	}
	if d.made {
		_ = os.Remove(d.Path)
	}
	return d.lock.Close()
}

func (d *Dir) file(name string) string { return filepath.Join(d.Path, name) }

func (d *Dir) read(name string) ([]byte, error) { return os.ReadFile(d.file(name)) }

func (d *Dir) write(name string, data []byte, perm fs.FileMode) error {
	if err := certs.WriteFile(d.file(name), data, perm); err != nil {
		return dirError(d.Path, err)
	}
	return nil
}

// Node reads node.json. It returns nil when this directory has not taken part in a cluster yet.
func (d *Dir) Node() (*Node, error) {
	n, err := readJSON[Node](d, nodeFile)
	if errors.Is(err, errContent) || n != nil && (n.NodeID == 0 || n.ClusterID == "") {
		return nil, fmt.Errorf("%s is not the node.json of a muster member", d.file(nodeFile))
	}
	return n, err
}

// errContent: a file exists but is not JSON of the expected form.
var errContent = errors.New("not the expected JSON")

// readJSON reads a file. It returns nil when the file does not exist, and an errContent when it cannot be decoded.
func readJSON[T any](d *Dir, name string) (*T, error) {
	data, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, dirError(d.Path, err)
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%w: %w", errContent, err)
	}
	return v, nil
}

// checkUnused accepts an empty directory and the remains of an interrupted first start.
func (d *Dir) checkUnused() error {
	ours := []string{lockFile, tlsDir, identityFile, adminFile, httpCAFile, foundingFile, restoreFile}
	entries, err := os.ReadDir(d.Path)
	if err != nil {
		return dirError(d.Path, err)
	}
	for _, e := range entries {
		if leftover(e.Name()) { // may hold a key
			_ = os.Remove(d.file(e.Name()))
			continue
		}
		if !slices.Contains(ours, e.Name()) && !ofFileSystem(e) && filepath.Ext(e.Name()) != ".log" {
			return fmt.Errorf("the data directory %s is not empty and is not that of a muster member (it holds %s): give an "+
				"empty one", d.Path, e.Name())
		}
	}
	return nil
}

// ofFileSystem reports whether an entry belongs to the file system, at whose root a data directory may be: lost files,
// snapshots, trash, quotas.
func ofFileSystem(e fs.DirEntry) bool {
	switch e.Name() {
	case "lost+found", ".snapshot", ".snapshots", ".zfs":
		return e.IsDir()
	case "aquota.user", "aquota.group", "quota.user", "quota.group":
		return e.Type().IsRegular()
	}
	return false
}

// SaveNode writes node.json.
func (d *Dir) SaveNode(n *Node) error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return err
	}
	return d.write(nodeFile, append(data, '\n'), 0o644)
}

// Moved writes node.json if the member has other addresses than at its last start.
func (d *Dir) Moved(n *Node) error {
	was, err := d.Node()
	if err != nil || was != nil && was.APIAddress == n.APIAddress && was.RaftAddress == n.RaftAddress {
		return err
	}
	return d.SaveNode(n)
}

// Identity reads the member's age identity, or makes one.
func (d *Dir) Identity() (*age.X25519Identity, error) {
	data, err := d.read(identityFile)
	if errors.Is(err, fs.ErrNotExist) {
		id, err := certs.NewIdentity()
		if err != nil {
			return nil, err
		}
		return id, d.write(identityFile, certs.EncodeIdentity(id, time.Now()), 0o600)
	}
	if err != nil {
		return nil, dirError(d.Path, err)
	}
	id, err := certs.ParseIdentity(data)
	if err != nil {
		return nil, fmt.Errorf("%s is not an age identity: %w", d.file(identityFile), err)
	}
	return id, nil
}

// OwnIdentity reads the identity of a member. It never makes a new one, which could not open what is wrapped for the
// member.
func (d *Dir) OwnIdentity() (*age.X25519Identity, error) {
	if _, err := os.Stat(d.file(identityFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the data directory %s has lost its node.key: restore the file, or remove the member and "+
			"join again with an empty directory", d.Path)
	}
	return d.Identity()
}

// key reads a private key, or makes one.
func (d *Dir) key(name string) (crypto.Signer, error) {
	data, err := d.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := certs.NewKey()
		if err != nil {
			return nil, err
		}
		pem, err := certs.EncodeKey(key)
		if err != nil {
			return nil, err
		}
		return key, d.write(name, pem, 0o600)
	}
	if err != nil {
		return nil, dirError(d.Path, err)
	}
	key, err := certs.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s is not a private key: %w", d.file(name), err)
	}
	return key, nil
}

// Founding reads the content of the first transaction. It returns nil once that is committed, and on members that
// joined.
func (d *Dir) Founding() (*store.Founding, error) {
	f, err := readJSON[store.Founding](d, foundingFile)
	if errors.Is(err, errContent) {
		err = fmt.Errorf("%s cannot be read: %w", d.file(foundingFile), err)
	}
	if f == nil {
		return nil, err
	}
	// The file is deleted before the first answer. While it exists, the Raft log may be incomplete and holds nothing that
	// was answered.
	return f, os.RemoveAll(d.file(RaftDir))
}

// Founded deletes what Founding returned.
func (d *Dir) Founded() error {
	for _, name := range []string{foundingFile, restoreFile} {
		if err := os.Remove(d.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// HTTPFiles returns the paths of the API listener's certificate chain and key.
func (d *Dir) HTTPFiles() (cert, key string) { return d.file(httpCert), d.file(httpKey) }

// AdminFile returns the path of the founder's administrator token.
func (d *Dir) AdminFile() string { return d.file(adminFile) }

// CAFile returns the path of the HTTP CA.
func (d *Dir) CAFile() string { return d.file(httpCAFile) }

// Credentials reads the member's transport certificate.
func (d *Dir) Credentials(n *Node) (*transport.Credentials, error) {
	files, err := d.transportFiles()
	if err != nil {
		return nil, d.transportFailure(err)
	}
	c, err := transport.NewCredentials(n.ClusterID, n.NodeID, files[0], files[1], files[2])
	if err != nil {
		return nil, d.transportFailure(err)
	}
	return c, nil
}

// leftover recognises the temporary files that certs.WriteFile leaves when it is killed.
func leftover(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}
