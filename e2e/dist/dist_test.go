package dist

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const root = "../.."

// binary returns the static muster that `make` has built, or builds it.
func binary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("MUSTER_BINARY"); path != "" {
		return path
	}
	run(t, nil, "make", "-s", "-C", root, "build")
	path, err := filepath.Abs(filepath.Join(root, "muster"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// run runs a command to its end and returns what it prints.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPackage installs the Debian package, starts a member, upgrades, removes and purges it, in a copy of this
// machine's system: an overlay over its root, in namespaces of its own.
func TestPackage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting an overlay takes root")
	}
	muster, dir := binary(t), t.TempDir()
	run(t, []string{"VERSION=1.0.0", "COMPRESSION=none"}, filepath.Join(root, "scripts/dist.sh"), "deb", dir, muster)
	found, err := filepath.Glob(filepath.Join(dir, "muster_1.0.0_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages: %v, %v", found, err)
	}
	// The next version is the same but for its number.
	tree, next := filepath.Join(dir, "tree"), filepath.Join(dir, "next.deb")
	run(t, nil, "dpkg-deb", "-R", found[0], tree)
	run(t, nil, "sed", "-i", "s/^Version: 1.0.0$/Version: 1.1.0/", filepath.Join(tree, "DEBIAN/control"))
	run(t, nil, "dpkg-deb", "-Znone", "--build", tree, next)
	const overlay = `set -e
		mount -t tmpfs -o size=512m none "$1/mnt" && mkdir "$1/mnt/upper" "$1/mnt/work" "$1/mnt/root"
		mount -t overlay -o "lowerdir=/,upperdir=$1/mnt/upper,workdir=$1/mnt/work" none "$1/mnt/root"
		cd "$1/mnt/root" && mkdir -p tmp proc dev && mount -t proc none proc && mount --rbind /dev dev
		mount -t tmpfs none tmp && mount -t tmpfs none run
		cp "$2" "$3" "$4" tmp
		exec chroot . /tmp/life.sh "/tmp/${3##*/}" "/tmp/${4##*/}"`
	life, err := filepath.Abs("testdata/life.sh")
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "mnt"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	out := run(t, []string{"DEBIAN_FRONTEND=noninteractive"}, "unshare", "--mount", "--pid", "--net", "--fork",
		"--kill-child", "env", "-u", "MUSTER_BINARY", "sh", "-c", overlay, "sh", dir, life, found[0], next)
	if !strings.HasSuffix(out, "== done\n") {
		t.Errorf("it does not come to its end:\n%s", out)
	}
}

// TestReproducible builds everything twice, in directories and with caches of their own, and compares the checksums. It
// takes minutes: `make dist-test` runs it.
func TestReproducible(t *testing.T) {
	if os.Getenv("MUSTER_DIST_TEST") == "" {
		t.Skip("it builds everything twice: make dist-test")
	}
	deps, err := filepath.Abs(filepath.Join(root, ".deps"))
	if err != nil {
		t.Fatal(err)
	}
	top := strings.TrimSpace(run(t, nil, "git", "-C", root, "rev-parse", "--show-toplevel"))
	var sums []string
	for i, name := range []string{"a", "a-directory-with-a-longer-name"} {
		dir := filepath.Join(t.TempDir(), name)
		run(t, nil, "git", "clone", "-q", top, dir)
		if err := os.Symlink(deps, filepath.Join(dir, ".deps")); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, "dist")
		run(t, []string{"GOCACHE=" + filepath.Join(dir, ".cache"), fmt.Sprintf("GOMAXPROCS=%d", i+1)},
			filepath.Join(dir, "scripts/dist.sh"), out, "amd64")
		text, err := os.ReadFile(filepath.Join(out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, string(text))
	}
	if lines := strings.Split(sums[0], "\n"); !slices.Equal(lines, strings.Split(sums[1], "\n")) || len(lines) < 4 {
		t.Errorf("two builds differ:\n%s\n%s", sums[0], sums[1])
	}
}

// TestArm64 builds the binary for arm64 and has an emulator run it: it is static, and says the same as the one of this
// machine. A member does not run there: dqlite needs io_setup, which the emulator of processes does not have. It takes
// minutes: `make dist-test` runs it.
func TestArm64(t *testing.T) {
	if os.Getenv("MUSTER_DIST_TEST") == "" {
		t.Skip("it builds for another architecture: make dist-test")
	}
	run(t, nil, filepath.Join(root, "scripts/setup.sh"), "arm64")
	emulator, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Skip("there is no emulator of arm64")
	}
	other, here := filepath.Join(t.TempDir(), "muster"), binary(t)
	run(t, nil, filepath.Join(root, "scripts/dist.sh"), "binary", other, "arm64")
	if out := run(t, nil, emulator, other, "version"); !strings.Contains(out, "muster") {
		t.Errorf("its version: %s", out)
	}
	if got, want := run(t, nil, emulator, other, "completion", "bash"), run(t, nil, here, "completion",
		"bash"); got != want {
		t.Errorf("its completions differ: %d bytes, and %d here", len(got), len(want))
	}
}
