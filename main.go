// Command muster is the control plane of a cluster; see `muster --help`.
package main

import (
	"context"
	_ "embed"
	"os"
	"os/signal"
	"syscall"

	"muster/cli"
)

// notice contains the licences of all linked modules; scripts/notice generates it.
//
//go:embed NOTICE
var notice string

func main() {
	cli.Notice = notice
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
