package handlers

import (
	"net/http"
)

// recorder remembers what was answered, and what the request holds.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool

	server *Server
	place  *stay   // in the room of its address; nil for a caller that is known
	ration *ration // of the memory for bodies; nil for what a member passes on
	slot   bool    // it is in work

	sentAway bool // because of a limit
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

// work takes a slot; false when there is none.
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

// release gives the slot back: writing an answer that its caller does not take is no work.
func (r *recorder) release() {
	if r.slot {
		r.slot = false
		<-r.server.slots
		r.server.inFlight.Dec()
	}
}

// known gives a stranger's place back: it has shown who it is.
func (r *recorder) known() {
	r.place.leave()
	r.place = nil
}

// recorderOf finds the recorder below what a family has put around it.
func recorderOf(w http.ResponseWriter) *recorder {
	for {
		if r, ok := w.(*recorder); ok {
			return r
		}
		w = w.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
	}
}
