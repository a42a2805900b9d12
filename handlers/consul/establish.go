package consul

import (
	"context"
	"errors"
	"net/http"

	"muster/certs"
	"muster/handlers"
	"muster/store"
)

// establishPeering serves POST /v1/peering/establish. It writes nothing before the other cluster has accepted the
// secret.
func (s *service) establishPeering(q *handlers.Request) error {
	in, token, err := establishRequest(q)
	if err != nil {
		return err
	}
	ctx := q.Context()
	if done, err := s.Replica.Answered(ctx, q.Actor); err != nil {
		return err
	} else if done { // the secret works only once
		return writeJSON(q, struct{}{})
	}
	if err := s.notOwn(ctx, &token); err != nil {
		return err
	}
	if err := s.whileDeleting(q, func() error { return s.Peerings.CanEstablish(ctx, in.PeerName) }); err != nil {
		return err
	}
	secret, err := s.exchange(ctx, token)
	if err != nil {
		return err
	}
	_, err = s.Peerings.Establish(ctx, q.Actor, store.Establishing{
		Name:             in.PeerName,
		Meta:             in.Meta,
		PeerID:           token.PeerID,
		ServerName:       token.ServerName,
		ServerAddresses:  token.ServerAddresses,
		ManualAddresses:  token.ManualServerAddresses,
		CAPems:           token.CA,
		RemoteDatacenter: token.Remote.Datacenter,
		ID:               certs.NewUUID(),
	}, secret)
	if err != nil {
		return err
	}
	return writeJSON(q, struct{}{})
}

// notOwn rejects a token of this cluster.
func (s *service) notOwn(ctx context.Context, token *PeeringToken) error {
	datacenter, err := s.Settings.Datacenter(ctx)
	if err != nil {
		return err
	}
	if token.ServerName == certs.PeeringName(datacenter, s.ClusterID) {
		return bad("cannot create a peering within the same cluster %q. Refer to the `exported-services` documentation "+
			"if you want to export between partitions without peering", token.ServerName)
	}
	return nil
}

// exchange exchanges the token's secret for a stream secret at the other cluster.
func (s *service) exchange(ctx context.Context, token PeeringToken) (string, error) {
	addresses := token.ManualServerAddresses
	if len(addresses) == 0 {
		addresses = token.ServerAddresses
	}
	if err := s.mayDialPeer(ctx, addresses); err != nil {
		return "", err
	}
	secret, err := s.Peers.ExchangeSecret(ctx, addresses, token.ServerName, token.CA, token.PeerID,
		token.EstablishmentSecret)
	switch {
	case errors.Is(err, store.ErrPeeringSecret):
		return "", handlers.Fail(http.StatusForbidden, "a new peering token must be generated: "+err.Error())
	case err != nil:
		return "", handlers.Fail(http.StatusServiceUnavailable, err.Error())
	}
	return secret, nil
}

// mayDialPeer rejects a token when the setting peering.networks allows none of its addresses. Host names are checked
// when they are dialled.
func (s *service) mayDialPeer(ctx context.Context, addresses []string) error {
	var first error
	for _, a := range addresses {
		why, err := s.Peers.MayDial(ctx, a)
		switch {
		case err != nil:
			return err
		case why == nil:
			return nil
		case first == nil:
			first = bad("%s is not a valid peering server address: %s; the setting %s says which networks are dialled", a, why,
				store.SettingPeeringNetworks)
		}
	}
	return first
}
