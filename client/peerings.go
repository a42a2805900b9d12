package client

import (
	"context"
	"net/url"
	"slices"
	"time"

	"muster/api"
)

// Peering is a connection to another cluster, with the documented fields of the Consul API first.
type Peering struct {
	ID                  string            `json:"ID"`
	Name                string            `json:"Name"`
	DeletedAt           *time.Time        `json:"DeletedAt,omitempty"`
	Meta                map[string]string `json:"Meta,omitempty"`
	State               string            `json:"State"` // PENDING, ESTABLISHING, ACTIVE, FAILING, DELETING or TERMINATED
	PeerID              string            `json:"PeerID,omitempty"`
	PeerCAPems          []string          `json:"PeerCAPems,omitempty"`
	PeerServerName      string            `json:"PeerServerName,omitempty"`
	PeerServerAddresses []string          `json:"PeerServerAddresses,omitempty"`
	StreamStatus        StreamStatus      `json:"StreamStatus"`
	CreateIndex         uint64            `json:"CreateIndex"`
	ModifyIndex         uint64            `json:"ModifyIndex"`
	Remote              PeeringRemote     `json:"Remote"`

	StatusReason string    `json:"StatusReason,omitempty"` // why it is FAILING or TERMINATED
	StatusSince  time.Time `json:"StatusSince"`
	Dialer       bool      `json:"Dialer"` // this cluster has used the token and dials the other one

	// Dials has the operator's addresses for dialling the other cluster, if they replace PeerServerAddresses.
	Dials []string `json:"Dials,omitempty"`
}

// Addresses returns the addresses of the other cluster: those that this cluster dials, and the others.
func (p *Peering) Addresses() (dialled, others []string) {
	switch {
	case !p.Dialer:
		return nil, p.PeerServerAddresses
	case len(p.Dials) == 0:
		return p.PeerServerAddresses, nil
	}
	for _, a := range p.PeerServerAddresses {
		if !slices.Contains(p.Dials, a) {
			others = append(others, a)
		}
	}
	return p.Dials, others
}

// StreamStatus describes the stream of a peering. The names are members' names; a time is nil before the first such
// event.
type StreamStatus struct {
	ImportedServices []string   `json:"ImportedServices"`
	ExportedServices []string   `json:"ExportedServices"`
	LastHeartbeat    *time.Time `json:"LastHeartbeat"`
	LastReceive      *time.Time `json:"LastReceive"`
	LastSend         *time.Time `json:"LastSend"`
}

// PeeringRemote is the other side's report about itself.
type PeeringRemote struct {
	Partition  string `json:"Partition"`
	Datacenter string `json:"Datacenter"`
}

// PeerMember is a member of another cluster that this one exports.
type PeerMember = api.PeerMember

// PeeringTokenRequest requests a token for another cluster to establish a peering.
type PeeringTokenRequest struct {
	PeerName                string            `json:"PeerName"`
	Meta                    map[string]string `json:"Meta,omitempty"`
	ServerExternalAddresses []string          `json:"ServerExternalAddresses,omitempty"` // HOST:PORT to dial
	TokenTTL                string            `json:"TokenTTL,omitempty"`                // Go duration; empty: unlimited
}

// NewPeeringToken is a token, which works once, with warnings.
type NewPeeringToken struct {
	PeeringToken string   `json:"PeeringToken"`
	Warnings     []string `json:"Warnings,omitempty"`
}

// PeeringToken makes a token; the peering is PENDING until it is used.
func (c *Client) PeeringToken(ctx context.Context, r PeeringTokenRequest) (NewPeeringToken, error) {
	return plain[NewPeeringToken](ctx, c, request{method: "POST", path: "/v1/peering/token", body: r,
		repeat: alwaysKeyed})
}

// EstablishPeering connects to the cluster that made the token, under this cluster's name for it. meta may be nil. It
// blocks until that cluster has accepted the token; the peering is ACTIVE a moment later.
func (c *Client) EstablishPeering(ctx context.Context, name, token string, meta map[string]string) error {
	body := struct {
		PeerName     string
		PeeringToken string
		Meta         map[string]string `json:",omitempty"`
	}{name, token, meta}
	_, err := c.do(ctx, request{
		method: "POST",
		path:   "/v1/peering/establish",
		body:   body,
		repeat: never,
		slow:   true,
	})
	return err
}

// Peerings lists the peerings by name.
func (c *Client) Peerings(ctx context.Context) ([]Peering, error) {
	return plain[[]Peering](ctx, c, request{method: "GET", path: "/v1/peerings", repeat: always, stale: true})
}

// Peering reads one peering.
func (c *Client) Peering(ctx context.Context, name string) (Peering, error) {
	return plain[Peering](ctx, c, request{method: "GET", path: "/v1/peering/" + url.PathEscape(name), repeat: always,
		stale: true})
}

// DeletePeering deletes a peering; the cluster removes its imported members in the background. An unknown name is no
// error.
func (c *Client) DeletePeering(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: "DELETE", path: "/v1/peering/" + url.PathEscape(name), repeat: on503})
	return err
}

// PeerMembers lists the members that the other cluster exports.
func (c *Client) PeerMembers(ctx context.Context, name string) ([]PeerMember, error) {
	return enveloped[[]PeerMember](ctx, c,
		request{method: "GET", path: "/api/v1/peerings/" + url.PathEscape(name) + "/members", repeat: always,
			stale: true})
}
