package backup

import (
	"path/filepath"
	"testing"
)

// FuzzValidName feeds names of files, which stand in requests and in orders of the leader: what is accepted is a name
// in the directory of the backups, and no other file's.
func FuzzValidName(f *testing.F) {
	for _, name := range []string{fileName, fileName + encryptedSuffix, "../" + fileName, "muster-.tgz", "", "muster-*",
		"muster-1a2b3c4d-20260102T030405Z-0123456789ab.tgz/../x.tgz"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if validName(name) && (!filepath.IsLocal(name) || filepath.Base(name) != name || len(name) > 255) {
			t.Fatalf("%q is accepted", name)
		}
	})
}
