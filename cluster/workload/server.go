package workload

import (
	"context"
	"crypto/x509"
	"time"

	api "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	header           = "workload.spiffe.io" // SPIFFE Workload Endpoint section 6: against forged requests
	maxRequest       = 64 << 10             // bytes
	streamsPerConn   = 64
	handshakeWithin  = 5 * time.Second
	certificateReady = 2 * time.Second // for a new registration to get its certificate
)

// errNoIdentity is the only answer to a caller without an identity.
var errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")

var (
	errNotReady = status.Error(codes.Unavailable, "the identity is not ready yet; try again")
	errHeader   = status.Error(codes.InvalidArgument, "security header missing from request")
	errTooMany  = status.Error(codes.ResourceExhausted, "this user has too many requests; try again later")
)

// API is the Workload API of a member.
type API struct {
	api.UnimplementedSpiffeWorkloadAPIServer

	cfg     Config
	agent   *agent
	tokens  *tokens
	users   *users
	metrics metrics
	grpc    *grpc.Server
}

// New returns the Workload API. Run serves it.
func New(cfg Config) (*API, error) {
	a, err := newAgent(cfg)
	if err != nil {
		return nil, err
	}
	w := &API{cfg: cfg, agent: a, tokens: newTokens(cfg.Leader), users: cfg.Listener.users}
	w.grpc = grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxHeaderListSize(16<<10),
		grpc.MaxConcurrentStreams(streamsPerConn),
		grpc.ConnectionTimeout(handshakeWithin),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(16<<10),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(w.unary), grpc.StreamInterceptor(w.stream))
	api.RegisterSpiffeWorkloadAPIServer(w.grpc, w)
	return w, nil
}

// Run keeps identities ready and serves the socket. It blocks until ctx ends.
func (w *API) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{}, 2)
	go func() { w.agent.run(ctx); done <- struct{}{} }()
	go func() { w.keepRefused(ctx); done <- struct{}{} }()
	stop := context.AfterFunc(ctx, w.grpc.Stop)
	w.cfg.Logger.Info("serving the SPIFFE Workload API", "socket", w.cfg.Listener.Addr().String())
	if err := w.grpc.Serve(w.cfg.Listener); err != nil && ctx.Err() == nil {
		w.cfg.Logger.Error("the SPIFFE Workload API has ended", "err", err)
	}
	cancel()
	stop()
	w.grpc.Stop()
	<-done
	<-done
}

// Settle blocks until this member has used the authorities of a revision, or ctx ends.
func (w *API) Settle(ctx context.Context, revision uint64) error {
	return w.agent.settle(ctx, revision)
}

// admit identifies the caller and counts the request. Nothing costly comes before it.
func (w *API) admit(ctx context.Context) (c *caller, free func(), err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, nil, errNoIdentity
	}
	info, ok := p.AuthInfo.(authInfo)
	if !ok {
		return nil, nil, errNoIdentity
	}
	free, ok = w.users.request(info.caller.uid)
	if !ok {
		return nil, nil, errTooMany
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get(header); len(v) != 1 || v[0] != "true" {
		free()
		return nil, nil, errHeader
	}
	return info.caller, free, nil
}

type callerKey struct{}

func (w *API) unary(ctx context.Context, q any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (out any,
	err error) {
	defer func() { w.metrics.count(info.FullMethod, err) }()
	c, free, err := w.admit(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	return handle(context.WithValue(ctx, callerKey{}, c), q)
}

func (w *API) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo,
	handle grpc.StreamHandler) (err error) {
	defer func() { w.metrics.count(info.FullMethod, err) }()
	c, free, err := w.admit(ss.Context())
	if err != nil {
		return err
	}
	defer free()
	return handle(srv, &callerStream{ss, context.WithValue(ss.Context(), callerKey{}, c)})
}

// callerStream is a stream with the caller in its context.
type callerStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *callerStream) Context() context.Context { return s.ctx }

// identities returns the present identities of a caller, and a channel that is closed when they may have changed. It
// waits briefly for certificates in progress.
func (w *API) identities(ctx context.Context) (*state, []*svid, <-chan struct{}, error) {
	c, _ := ctx.Value(callerKey{}).(*caller)
	for deadline := time.Now().Add(certificateReady); ; {
		st, changed := w.agent.now()
		if st.bundle != nil {
			list := st.entitled(c)
			if len(list) == 0 {
				w.users.refuse.note(c, time.Now())
				return nil, nil, nil, errNoIdentity
			}
			if ready := st.ready(list, time.Now()); len(ready) > 0 {
				return st, ready, changed, nil
			}
		}
		select {
		case <-changed:
		case <-time.After(time.Until(deadline)):
			return nil, nil, nil, errNotReady
		case <-ctx.Done():
			return nil, nil, nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// follow sends the result of make, now and after each change, while the caller has an identity.
func follow[T proto.Message](w *API, ctx context.Context, send func(T) error,
	make func(*state, []*svid) (T, error)) error {
	var last T
	for sent := false; ; {
		st, ready, changed, err := w.identities(ctx)
		if err != nil {
			return err
		}
		out, err := make(st, ready)
		if err != nil {
			return status.Error(codes.Internal, "the answer could not be encoded")
		}
		if !sent || !proto.Equal(last, out) {
			if err := send(out); err != nil {
				return err
			}
			last, sent = out, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// FetchX509SVID streams the caller's certificates and trust bundles.
func (w *API) FetchX509SVID(_ *api.X509SVIDRequest, ss grpc.ServerStreamingServer[api.X509SVIDResponse]) error {
	return follow(w, ss.Context(), ss.Send, func(st *state, ready []*svid) (*api.X509SVIDResponse, error) {
		out := &api.X509SVIDResponse{FederatedBundles: map[string][]byte{}}
		own := joined(st.bundle.X509Authorities())
		for _, s := range ready {
			out.Svids = append(out.Svids, &api.X509SVID{SpiffeId: s.id.String(), X509Svid: s.chain, X509SvidKey: s.key,
				Bundle: own})
		}
		for domain, b := range st.federated {
			out.FederatedBundles[domain.IDString()] = joined(b.X509Authorities())
		}
		return out, nil
	})
}

// FetchX509Bundles streams the trust bundles for X509-SVIDs.
func (w *API) FetchX509Bundles(_ *api.X509BundlesRequest,
	ss grpc.ServerStreamingServer[api.X509BundlesResponse]) error {
	return follow(w, ss.Context(), ss.Send, func(st *state, _ []*svid) (*api.X509BundlesResponse, error) {
		out := &api.X509BundlesResponse{Bundles: map[string][]byte{
			st.bundle.TrustDomain().IDString(): joined(st.bundle.X509Authorities())}}
		for domain, b := range st.federated {
			out.Bundles[domain.IDString()] = joined(b.X509Authorities())
		}
		return out, nil
	})
}

// FetchJWTBundles streams the trust bundles for JWT-SVIDs.
func (w *API) FetchJWTBundles(_ *api.JWTBundlesRequest, ss grpc.ServerStreamingServer[api.JWTBundlesResponse]) error {
	return follow(w, ss.Context(), ss.Send, func(st *state, _ []*svid) (*api.JWTBundlesResponse, error) {
		out := &api.JWTBundlesResponse{Bundles: map[string][]byte{}}
		keys, err := st.bundle.JWTBundle().Marshal()
		if err != nil {
			return nil, err
		}
		out.Bundles[st.bundle.TrustDomain().IDString()] = keys
		for domain, b := range st.federated {
			if keys, err = b.JWTBundle().Marshal(); err != nil {
				return nil, err
			}
			out.Bundles[domain.IDString()] = keys
		}
		return out, nil
	})
}

// joined returns the concatenated DER of certificates.
func joined(list []*x509.Certificate) (out []byte) {
	for _, c := range list {
		out = append(out, c.Raw...)
	}
	return out
}

// FetchJWTSVID returns a JWT-SVID for each of the caller's identities, or for the requested one.
func (w *API) FetchJWTSVID(ctx context.Context, q *api.JWTSVIDRequest) (*api.JWTSVIDResponse, error) {
	if err := checkAudience(q.GetAudience()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var want spiffeid.ID
	if text := q.GetSpiffeId(); text != "" {
		var err error
		if want, err = spiffeid.FromString(text); err != nil {
			return nil, status.Error(codes.InvalidArgument, "spiffe_id must be a SPIFFE ID")
		}
	}
	st, ready, _, err := w.identities(ctx)
	if err != nil {
		return nil, err
	}
	out := &api.JWTSVIDResponse{}
	sequence, _ := st.bundle.SequenceNumber()
	for _, s := range ready {
		if !want.IsZero() && s.id != want {
			continue
		}
		token, err := w.tokens.get(ctx, st.registrationOf(s), q.GetAudience(), sequence, time.Now())
		if err != nil {
			w.cfg.Logger.Debug("a JWT-SVID could not be signed", "id", s.id, "err", err)
			return nil, errNotReady
		}
		out.Svids = append(out.Svids, &api.JWTSVID{SpiffeId: s.id.String(), Svid: token})
	}
	if len(out.Svids) == 0 {
		return nil, errNoIdentity
	}
	return out, nil
}

// registrationOf returns the registration of a certificate.
func (st *state) registrationOf(s *svid) string {
	for id, other := range st.svids {
		if other == s {
			return id
		}
	}
	return ""
}
