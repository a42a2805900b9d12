package datadir

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"muster/certs"
)

// HTTPUsable reports whether the API certificate fits its key.
func (d *Dir) HTTPUsable() bool {
	_, err := tls.LoadX509KeyPair(d.HTTPFiles())
	return err == nil
}

// HTTPDamaged reports whether the API certificate or its key is missing or damaged, for example empty after a power
// cut. A leader can issue another one then. False when a file cannot be read at all.
func (d *Dir) HTTPDamaged() bool {
	for _, name := range []string{httpCert, httpKey} {
		if _, err := d.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return !d.HTTPUsable()
}

// dropDamagedKey removes a file that holds no private key, so that another key is made.
func (d *Dir) dropDamagedKey(name string) error {
	data, err := d.read(name)
	if err != nil {
		return nil // the reader of the key reports it
	}
	if _, err := certs.ParseKey(data); err == nil {
		return nil
	}
	return os.Remove(d.file(name))
}

// transportFailure adds to an error about the transport certificate what mends it: a member that still has its key
// rejoins.
func (d *Dir) transportFailure(err error) error {
	return fmt.Errorf("%w\n%s", err, d.nextTransport())
}

func (d *Dir) nextTransport() string {
	data, err := d.read(transportKey)
	if err == nil {
		_, err = certs.ParseKey(data)
	}
	if err != nil {
		return nextKeyLost
	}
	return NextRejoin
}
