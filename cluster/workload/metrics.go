package workload

import (
	"path"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// metrics counts the requests to the socket.
type metrics struct {
	mu       sync.Mutex
	requests map[requestKind]uint64
}

type requestKind struct {
	method string
	code   codes.Code
}

func (m *metrics) count(method string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.requests == nil {
		m.requests = map[requestKind]uint64{}
	}
	m.requests[requestKind{path.Base(method), status.Code(err)}]++
}

var (
	descRequests = prometheus.NewDesc("muster_workload_requests_total",
		"Requests to the SPIFFE Workload API that have ended, by method and gRPC code.", []string{"method", "code"}, nil)
	descStreams = prometheus.NewDesc("muster_workload_streams",
		"Requests to the SPIFFE Workload API that are open.", nil, nil)
	descConnections = prometheus.NewDesc("muster_workload_connections",
		"Open connections to the SPIFFE Workload API.", nil, nil)
	descTurnedAway = prometheus.NewDesc("muster_workload_turned_away_total",
		"Connections and requests to the SPIFFE Workload API beyond the limits of a user or of the socket.", nil, nil)
	descRefused = prometheus.NewDesc("muster_workload_refused_total",
		"Requests to the SPIFFE Workload API of callers without an identity.", nil, nil)
	descSVIDs = prometheus.NewDesc("muster_workload_svids",
		"Certificates that this member has ready for its workloads.", nil,
		nil)
	descFailed = prometheus.NewDesc("muster_workload_renewals_failed_total",
		"Times that certificates of this member's workloads could not be renewed.", nil, nil)
	descExpiry = prometheus.NewDesc("muster_workload_svid_expiry_seconds",
		"Time until the first of this member's workload certificates ends.", nil, nil)
)

// Describe sends nothing, which makes the collector unchecked.
func (w *API) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of the socket and of the certificates.
func (w *API) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64) { out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v) }
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	w.metrics.mu.Lock()
	for k, n := range w.metrics.requests {
		count(descRequests, n, k.method, k.code.String())
	}
	w.metrics.mu.Unlock()
	connections, streams := w.users.figures()
	gauge(descConnections, float64(connections))
	gauge(descStreams, float64(streams))
	count(descTurnedAway, w.users.turnedAway.Load())
	count(descRefused, w.users.refuse.total.Load())
	count(descFailed, w.agent.failed.Load())
	st, _ := w.agent.now()
	gauge(descSVIDs, float64(len(st.svids)))
	if len(st.svids) > 0 {
		first := time.Duration(1<<63 - 1)
		for _, s := range st.svids {
			first = min(first, time.Until(s.leaf.NotAfter))
		}
		gauge(descExpiry, first.Seconds())
	}
}
