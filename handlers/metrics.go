package handlers

import (
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"muster/internal/netlimit"
)

// instruments are the metrics of this member's listeners. Routes are patterns of the table, never raw paths.
type instruments struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	refused  prometheus.Counter
	dropped  prometheus.Counter
	sentAway *prometheus.CounterVec
	handler  http.Handler
}

func newInstruments(s *Server) *instruments {
	i := &instruments{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_http_requests_total",
			Help: "Requests answered, by path pattern; forwarded requests count on both members."},
			[]string{"method", "route", "code", "via"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "muster_http_request_duration_seconds",
			Help: "Time until the answer was complete, without streams of events.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5,
				5}}, []string{"method", "route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_http_requests_in_flight",
			Help: "Requests in progress, without streams of events."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_http_overload_total",
			Help: "Requests rejected because too many were in progress."}),
		sentAway: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "muster_http_sent_away_total",
			Help: "Requests rejected by a limit, by limit."}, []string{"limit"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{Name: "muster_event_readers_dropped_total",
			Help: "Readers of events disconnected because they were too slow."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "muster_build_info", Help: "1, labelled with the version.",
		ConstLabels: prometheus.Labels{"version": s.Version, "commit": s.Commit, "go": runtime.Version()}})
	build.Set(1)
	readers := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_event_readers",
		Help: "Open streams of events on this member."},
		func() float64 { return float64(s.EventReaders()) })
	registry := prometheus.NewRegistry()
	registry.MustRegister(i.requests, i.duration, i.inFlight, i.refused, i.dropped, i.sentAway, build, readers,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, limit := range []string{refusedConnections, refusedRequests, refusedStrangers, refusedBodies, refusedAnswers,
		refusedBlocking, refusedReaders, refusedCrossOrigin, refusedFrames} {
		i.sentAway.WithLabelValues(limit)
	}
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_http_strangers",
		Help: "Requests in progress without a valid credential."},
		func() float64 { return float64(s.rooms.open()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_http_blocking_queries",
			Help: "Blocking queries that are waiting."},
			func() float64 { return float64(s.waiting.taken()) }))
	registry.MustRegister(connectionMetrics(s.Connections)...)
	registry.MustRegister(s.Replica)
	registry.MustRegister(s.Collectors...)
	i.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8, Timeout: AnswerWithin})
	return i
}

// observe records one answer.
func (i *instruments) observe(rt *Route, o origin, r *http.Request, status int, took time.Duration) {
	method, path, via := r.Method, "other", "api"
	if rt != nil {
		method, path = rt.Method, rt.Path
	} else if !knownMethods[method] {
		method = "other"
	}
	switch {
	case o.forwarded:
		via = "member"
	case o.plain:
		via = "plain"
	}
	i.requests.WithLabelValues(method, path, strconv.Itoa(status), via).Inc()
	if rt == nil || !rt.Stream {
		i.duration.WithLabelValues(method, path).Observe(took.Seconds())
	}
}

// knownMethods bounds the label's values: a caller can send any word as method.
var knownMethods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true,
	"DELETE": true, "OPTIONS": true}

// ServeMetrics serves this member's metrics in the Prometheus format. It has only numbers and, like the status, needs
// no token.
func ServeMetrics(q *Request) error {
	q.W.Header().Del("Content-Type")
	w := &held{ResponseWriter: q.W, ration: recorderOf(q.W).ration}
	q.server.handler.ServeHTTP(w, q.Request)
	if !w.end() {
		q.W.Header().Del("Content-Encoding")
		q.server.tooMany(q.W, q.route.Family, refusedBodies,
			"too much of what this caller has asked for waits to be read; try again", time.Second)
	}
	return nil
}

// held is an answer that is complete in memory before its first byte is sent. Until it has been read it counts among
// the bytes of its caller, so that many callers that do not read take little.
type held struct {
	http.ResponseWriter
	ration *ration
	status int
	begun  bool
	noRoom bool
}

// WriteHeader keeps the status until the first byte.
func (w *held) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write sends the answer if there is room for it.
func (w *held) Write(p []byte) (int, error) {
	if !w.begun && !w.ration.take(cap(p)) {
		w.noRoom = true
	}
	if w.noRoom {
		return 0, errNoRoom
	}
	w.begin()
	return w.ResponseWriter.Write(p)
}

func (w *held) begin() {
	if !w.begun {
		w.begun = true
		w.WriteHeader(http.StatusOK)
		w.ResponseWriter.WriteHeader(w.status)
	}
}

// end sends an answer without bytes. It returns false when there was no room for the answer.
func (w *held) end() bool {
	if !w.noRoom {
		w.begin()
	}
	return !w.noRoom
}

// connectionMetrics returns the metrics of the listeners' connections; none without a limiter.
func connectionMetrics(l *netlimit.Limiter) []prometheus.Collector {
	if l == nil {
		return nil
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_http_connections",
			Help: "Open connections of the listeners for clients."},
			func() float64 { return float64(l.Open()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_http_connections_refused_total",
			Help: "Connections rejected because there were too many."},
			func() float64 { return float64(l.Refused()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_http_connections_evicted_total",
			Help: "Connections without a valid credential closed to make room for others."},
			func() float64 { return float64(l.Evicted()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_http_connections_paced_total",
			Help: "How often a connection without a valid credential was read later than it has sent, because of what its " +
				"address costs."},
			func() float64 { return float64(l.Paced()) }),
	}
}
