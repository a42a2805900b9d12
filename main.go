// Command muster is the control plane of a cluster; see `muster --help`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"muster/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
