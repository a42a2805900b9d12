package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"muster/cluster/transport"
	"muster/store"
)

// Register adds the handlers for other members. Only the leader may send orders that change something.
func (m *Maker) Register(mux *http.ServeMux) {
	mux.HandleFunc("POST "+pathMake, func(w http.ResponseWriter, r *http.Request) {
		m.serve(w, r, func(ctx context.Context, o order) (outcome, error) { return m.make(ctx, o) })
	})
	for path, do := range map[string]func(context.Context, order) outcome{
		pathCheck: m.check, pathRemove: m.remove, pathVerify: m.verify} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			m.serve(w, r, func(ctx context.Context, o order) (outcome, error) { return do(ctx, o), nil })
		})
	}
	mux.HandleFunc("GET "+pathFile, m.serveFile)
}

// maxOrder bounds the size of an order: a directory and some recipients.
const maxOrder = 16 << 10

func (m *Maker) serve(w http.ResponseWriter, r *http.Request, do func(context.Context, order) (outcome, error)) {
	if leader := m.Store.LeaderID(); leader != 0 && leader != transport.MemberID(r.Context()) {
		http.Error(w, "only the leader may send this request", http.StatusMisdirectedRequest)
		return
	}
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxOrder)).Decode(&o); err != nil {
		http.Error(w, "the order cannot be read", http.StatusBadRequest)
		return
	}
	out, err := do(r.Context(), o)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

func (m *Maker) serveFile(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f, size, err := m.read(r.Context(), order{Target: q.Get("target"), Name: q.Get("name")})
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.Copy(w, f)
}

// call sends an order to a member, which may be this one.
func (m *Maker) call(ctx context.Context, id uint64, path string, o order) (out outcome, err error) {
	if id == m.self {
		switch path {
		case pathMake:
			return m.make(ctx, o)
		case pathCheck:
			return m.check(ctx, o), nil
		case pathRemove:
			return m.remove(ctx, o), nil
		}
		return m.verify(ctx, o), nil
	}
	body, err := json.Marshal(o)
	if err != nil {
		return out, err
	}
	err = m.Transport.Call(ctx, http.MethodPost, id, path, bytes.NewReader(body), &out)
	return out, err
}

func (l *Leader) make(ctx context.Context, id uint64, o order) (outcome, error) {
	return l.Maker.call(ctx, id, pathMake, o)
}

// ask is call within d. It returns errors as reasons.
func (l *Leader) ask(ctx context.Context, id uint64, d time.Duration, path string, o order) outcome {
	return l.Maker.ask(ctx, id, d, path, o)
}

func (m *Maker) ask(ctx context.Context, id uint64, d time.Duration, path string, o order) outcome {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	out, err := m.call(ctx, id, path, o)
	if err != nil {
		return failed(errors.New("it does not answer"))
	}
	return out
}

// Verify makes the holder of a backup read the file again, and returns why that failed; empty on success. damaged: the
// content of the file has changed; otherwise the file could not be read now. It blocks for minutes if the file is
// large.
func (m *Maker) Verify(ctx context.Context, b *store.Backup) (reason string, damaged bool) {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	id, err := m.holder(ctx, b)
	if err != nil {
		return err.Error(), false
	}
	out, err := m.call(ctx, id, pathVerify, order{Target: b.Target, Name: b.Name, Size: b.Size, SHA256: b.SHA256})
	if err != nil {
		return "node " + strconv.FormatUint(id, 10) + " does not answer", false
	}
	return out.Reason, out.Reason != "" && !out.Unread
}

// holder returns the member that reads the file of a backup: the one that has it, or for a bucket the leader, which has
// the credentials. If each member has its own credentials, it is the one that wrote the file, while it is a member.
func (m *Maker) holder(ctx context.Context, b *store.Backup) (uint64, error) {
	if !store.InBucket(b.Target) {
		return b.NodeID, nil
	}
	o, err := m.Store.Backups.Settings(ctx, store.Stale)
	if err != nil {
		return 0, err
	}
	if o.S3.Credentials == "" {
		list, err := m.Store.Members.IDs(ctx, store.Stale)
		if err != nil {
			return 0, err
		}
		if slices.Contains(list, b.NodeID) {
			return b.NodeID, nil
		}
	}
	if id := m.Store.LeaderID(); id != 0 {
		return id, nil
	}
	return 0, gone(b, "there is no leader, which knows the credentials of the bucket")
}

// File opens the file of a backup, on any member. The caller closes it. The error is a Refusal when its holder does not
// have it.
func (m *Maker) File(ctx context.Context, b *store.Backup) (io.ReadCloser, int64, error) {
	id, err := m.holder(ctx, b)
	if err != nil {
		return nil, 0, err
	}
	if id == m.self {
		r, size, err := m.read(ctx, order{Target: b.Target, Name: b.Name})
		if err != nil {
			return nil, 0, gone(b, err.Error())
		}
		return r, size, nil
	}
	q := url.Values{"target": {b.Target}, "name": {b.Name}}
	resp, err := m.Transport.Get(ctx, id, pathFile+"?"+q.Encode())
	if err != nil {
		return nil, 0, gone(b, "the member does not answer")
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		return nil, 0, gone(b, string(bytes.TrimSpace(text)))
	}
	return resp.Body, resp.ContentLength, nil
}

func gone(b *store.Backup, why string) error {
	return &store.Refusal{Code: store.Conflict,
		Message: "the backup cannot be read from node " + strconv.FormatUint(b.NodeID, 10) + ": " + why}
}
