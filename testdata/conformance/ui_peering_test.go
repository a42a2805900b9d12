package conformance

import (
	"strings"
	"testing"
)

// Two clusters are connected and parted with nothing but their pages.
func TestWebPagePeering(t *testing.T) {
	t.Parallel()
	near, far := start(t, 1), start(t, 1)
	b, other := openBrowser(t, near.ca), openBrowser(t, far.ca)
	for page, c := range map[*browser]*cluster{b: near, other: far} {
		page.open(c.addrs[0] + "/ui/#/peerings")
		page.shows("API token")
		page.press(c.token + "\r")
		page.shows("There are no peerings.")
	}
	b.click("Create a peering token…")
	b.fill("Name of the other cluster here", "Oslo!")
	b.click("Create")
	b.shows("Oslo! is not a valid peer name") // the server's own words
	b.fill("Name of the other cluster here", "oslo")
	b.shows("muster peering token oslo")
	b.click("Create")
	b.shows("The token is shown this once.")
	token := strings.TrimSpace(eval[string](b, `document.querySelector("dialog .copy code").innerText`))
	b.click("Done")
	b.shows("pending")

	other.click("Establish…")
	other.fill("Name of the other cluster here", "lima")
	other.fill("Token of the other cluster", token)
	other.shows(`muster peering establish lima "$TOKEN"`)
	other.click("Establish")
	other.await(`!document.querySelector("dialog")`)
	other.shows("active")
	b.shows("active")
	b.open(near.addrs[0] + "/ui/#/peerings/oslo")
	b.shows("node-1")                                                     // the member of the other cluster
	b.await(`/peering\./.test(document.querySelector("main").innerText)`) // its history
	b.click("Delete…")
	b.await(control("Delete") + ".disabled")
	b.fill("Type oslo to confirm", "oslo")
	b.click("Delete")
	b.shows("There are no peerings.")
	other.shows("terminated")
	b.behaved(near.addrs[0])
	other.behaved(far.addrs[0])
}
