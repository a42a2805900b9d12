package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"muster/certs"
	"muster/cluster/datadir"
)

// newJoinTokenKeyHashCommand makes the command that runs on the machine that is to join.
func newJoinTokenKeyHashCommand(env *environment) *cobra.Command {
	return &cobra.Command{
		Use:   "key-hash [RECIPIENT] | --data DIR",
		Short: "Print what create --key-hash takes for a machine's key",
		Long: `Prints the SHA-256 of a machine's public key, for "join-token create --key-hash": only the machine that has this key can
use such a token. Run it on the new machine with the --data that it will have: its key, DIR/node.key, is made if need be, and
"serve --join" uses it. RECIPIENT is the public key itself (age1…), as node.key has it in its comment.`,
		Args: atMostOne,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (env.data != "") {
				return usagef(cmd, "give a public key (age1…) or --data DIR")
			}
			recipient := ""
			if len(args) == 1 {
				recipient = args[0]
			} else {
				made, err := machineKey(env.data)
				if err != nil {
					return err
				}
				recipient = made
			}
			key, err := certs.PublicKey(recipient)
			if err != nil {
				return usagef(cmd, "%q is not a public key of the form age1…", recipient)
			}
			sum := sha256.Sum256(key[:])
			_, err = fmt.Fprintln(env.stdout, hex.EncodeToString(sum[:]))
			return err
		},
	}
}

// machineKey reads the public key of the data directory dir, or makes it in an empty one.
func machineKey(dir string) (recipient string, err error) {
	d, err := datadir.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	n, err := d.Node()
	if err != nil {
		return "", err
	}
	if n != nil {
		return "", fmt.Errorf("%s is the directory of a member already: a token that it joins with is for new ones", dir)
	}
	id, err := d.Identity()
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), nil
}
