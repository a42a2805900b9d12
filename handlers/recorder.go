package handlers

import (
	"net/http"
)

// recorder records the status of the answer and the resources of the request.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool

	server *Server
	place  *stay   // in the room of its address; nil for a known caller whose credential allows something
	ration *ration // of the memory for bodies; nil for forwarded requests
	own    ration  // storage for ration
	slot   bool    // it holds a request slot

	stranger bool // without a credential that this member knows
	sentAway bool // rejected by a limit
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
		r.release()
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if !r.wrote {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// work takes a request slot; false when all are taken.
func (r *recorder) work() bool {
	select {
	case r.server.slots <- struct{}{}:
		r.slot = true
		r.server.inFlight.Inc()
		return true
	default:
		return false
	}
}

// rationed starts to count the body for a caller.
func (r *recorder) rationed(x *rations, caller string) {
	r.own = ration{rations: x, caller: caller}
	r.ration = &r.own
}

// release returns the slot when the answer begins: a caller that reads slowly must not hold one.
func (r *recorder) release() {
	if r.slot {
		r.slot = false
		<-r.server.slots
		r.server.inFlight.Dec()
	}
}

// known returns a stranger's place once it has presented a valid credential.
func (r *recorder) known() {
	r.place.leave()
	r.place, r.stranger = nil, false
}

// recorderOf finds the recorder below a family's wrappers.
func recorderOf(w http.ResponseWriter) *recorder {
	for {
		if r, ok := w.(*recorder); ok {
			return r
		}
		w = w.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
	}
}
