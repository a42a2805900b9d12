package workload

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	api "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	maxTokens = 4096     // in the cache
	maxJWT    = 16 << 10 // bytes of a JWT-SVID to validate
)

// tokens caches JWT-SVIDs, so that a repeated request needs no leader.
type tokens struct {
	leader Leader
	mu     sync.Mutex
	kept   map[string]token
	as     uint64 // sequence of their trust bundle
}

type token struct {
	text           string
	issued, expiry time.Time
}

func newTokens(l Leader) *tokens { return &tokens{leader: l, kept: map[string]token{}} }

// get returns a JWT-SVID of a registration: a cached one with more than half of its life left, or without a leader any
// valid one.
func (t *tokens) get(ctx context.Context, workload string, audience []string, sequence uint64,
	now time.Time) (string, error) {
	audience = slices.Compact(slices.Sorted(slices.Values(audience)))
	key := workload + "\x00" + strings.Join(audience, "\x00")
	t.mu.Lock()
	if sequence != t.as { // their key may no longer be trusted
		clear(t.kept)
		t.as = sequence
	}
	old := t.kept[key]
	t.mu.Unlock()
	if old.expiry.Sub(now) > old.expiry.Sub(old.issued)/2 {
		return old.text, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := t.leader.SignJWT(ctx, JWTRequest{Workload: workload, Audience: audience})
	if err != nil {
		if now.Before(old.expiry) {
			return old.text, nil
		}
		return "", err
	}
	expiry, err := expiryOf(answer.Token)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.makeRoom(now)
	t.kept[key] = token{answer.Token, now, expiry}
	return answer.Token, nil
}

// makeRoom removes expired tokens, and others if that is not enough.
func (t *tokens) makeRoom(now time.Time) {
	if len(t.kept) < maxTokens {
		return
	}
	for key, k := range t.kept {
		if !now.Before(k.expiry) {
			delete(t.kept, key)
		}
	}
	for key := range t.kept {
		if len(t.kept) < maxTokens {
			return
		}
		delete(t.kept, key)
	}
}

// expiryOf returns the expiry of a JWT-SVID without verifying it: it comes from the leader.
func expiryOf(text string) (time.Time, error) {
	parts := strings.Split(text, ".")
	if len(parts) == 3 {
		if data, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			var claims struct {
				Expiry int64 `json:"exp"`
			}
			if json.Unmarshal(data, &claims) == nil && claims.Expiry > 0 {
				return time.Unix(claims.Expiry, 0), nil
			}
		}
	}
	return time.Time{}, errors.New("the leader's answer is not a JWT-SVID")
}

// ValidateJWTSVID checks a JWT-SVID of this cluster or of one with a peering.
func (w *API) ValidateJWTSVID(ctx context.Context, q *api.ValidateJWTSVIDRequest) (*api.ValidateJWTSVIDResponse,
	error) {
	if err := checkAudience([]string{q.GetAudience()}); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if len(q.GetSvid()) == 0 || len(q.GetSvid()) > maxJWT {
		return nil, status.Error(codes.InvalidArgument, "svid must be a JWT-SVID of at most 16384 bytes")
	}
	st, _, _, err := w.identities(ctx)
	if err != nil {
		return nil, err
	}
	set := jwtbundle.NewSet(st.bundle.JWTBundle())
	for _, b := range st.federated {
		set.Add(b.JWTBundle())
	}
	svid, err := jwtsvid.ParseAndValidate(q.GetSvid(), set, []string{q.GetAudience()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	claims, err := structpb.NewStruct(svid.Claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "the claims of the JWT-SVID cannot be shown")
	}
	return &api.ValidateJWTSVIDResponse{SpiffeId: svid.ID.String(), Claims: claims}, nil
}

// keepRefused makes the leader write audit rows of callers without an identity. What cannot be written now is counted
// in the next row of that user.
func (w *API) keepRefused(ctx context.Context) {
	for {
		list, next := w.users.refuse.due(time.Now())
		if len(list) > 0 {
			wctx, cancel := context.WithTimeout(ctx, askWithin)
			if err := w.cfg.Leader.NoteRefused(wctx, list); err != nil && ctx.Err() == nil {
				for i := range list {
					w.cfg.Logger.Warn("a caller without an identity", "uid", list[i].UID, "gid", list[i].GID,
						"times", list[i].Count)
				}
			}
			cancel()
		}
		wait := refusedEvery
		if !next.IsZero() {
			wait = time.Until(next)
		}
		select {
		case <-time.After(max(wait, lookRest)):
		case <-w.users.refuse.wake:
		case <-ctx.Done():
			return
		}
	}
}
