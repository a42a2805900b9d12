// Command attacker attacks a member until it is killed, for the benchmark: attacker NAME ADDRESS FROM CREDENTIAL. FROM
// is the IP address to attack from, CREDENTIAL an Authorization header that allows nothing. Without arguments it lists
// the names of the attacks, one a line.
package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"muster/e2e/attack"
)

// hold is how long an attack holds what it has opened before it begins again.
const hold = 2 * time.Second

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		for _, x := range attack.OfRequests("") {
			fmt.Println(x.Name)
		}
		return
	}
	if len(args) != 4 {
		fmt.Fprintln(os.Stderr, "attacker: NAME ADDRESS FROM CREDENTIAL are needed, or nothing")
		os.Exit(2)
	}
	for _, x := range attack.OfRequests(args[3]) {
		for x.Name == args[0] {
			a := &attack.Attacker{Addr: args[1], From: net.ParseIP(args[2])}
			x.Do(a)
			time.Sleep(hold)
			a.End()
		}
	}
	fmt.Fprintf(os.Stderr, "attacker: there is no attack %q\n", args[0])
	os.Exit(1)
}
