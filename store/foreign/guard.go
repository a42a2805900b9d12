package foreign

/*
#include <stdlib.h>
#include <time.h>

// Parts of SQLite's C interface that go-sqlite3 does not offer.
typedef struct {
	void *(*xMalloc)(int);
	void  (*xFree)(void *);
	void *(*xRealloc)(void *, int);
	int   (*xSize)(void *);
	int   (*xRoundup)(int);
	int   (*xInit)(void *);
	void  (*xShutdown)(void *);
	void *pAppData;
} mem_methods; // sqlite3_mem_methods
extern int  sqlite3_config(int, ...);
extern int  sqlite3_initialize(void);
extern void sqlite3_progress_handler(void *db, int ops, int (*handler)(void *), void *arg);
enum { CONFIG_MALLOC = 4, CONFIG_GETMALLOC = 5 };

typedef struct {
	long long until; // nanoseconds of CLOCK_MONOTONIC
	long long left;  // bytes
	int       why;   // 1 time, 2 memory
	int       stop;  // the caller has gone
} muster_guard;

static mem_methods plain;
static __thread muster_guard *current;

static int spend(long long n) {
	if (!current)
		return 1;
	if (current->left < n) {
		current->why = 2;
		return 0;
	}
	current->left -= n;
	return 1;
}

static void *guarded_malloc(int n) { return spend(n) ? plain.xMalloc(n) : 0; }

static void guarded_free(void *p) {
	if (current)
		current->left += plain.xSize(p);
	plain.xFree(p);
}

static void *guarded_realloc(void *p, int n) {
	return spend(current ? (long long)n - plain.xSize(p) : 0) ? plain.xRealloc(p, n) : 0;
}

// SQLite accepts this only before its first use. It is initialised here, by one thread: dqlite ends the process when
// its first servers, started at the same time, find it half initialised.
static int muster_guard_install(void) {
	mem_methods m;
	int rc = sqlite3_config(CONFIG_GETMALLOC, &plain);
	if (rc)
		return rc;
	m = plain;
	m.xMalloc = guarded_malloc;
	m.xFree = guarded_free;
	m.xRealloc = guarded_realloc;
	rc = sqlite3_config(CONFIG_MALLOC, &m);
	return rc ? rc : sqlite3_initialize();
}

static long long muster_now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int muster_guard_check(void *arg) {
	muster_guard *g = arg;
	if (!g->why && (__atomic_load_n(&g->stop, __ATOMIC_RELAXED) || muster_now() > g->until))
		g->why = 1;
	return g->why;
}

static muster_guard *muster_guard_begin(void *db, long long ns, long long bytes) {
	muster_guard *g = calloc(1, sizeof *g);
	if (!g)
		return 0;
	g->until = muster_now() + ns;
	g->left = bytes;
	sqlite3_progress_handler(db, 20, muster_guard_check, g);
	return current = g;
}

static void muster_guard_stop(muster_guard *g) { __atomic_store_n(&g->stop, 1, __ATOMIC_RELAXED); }

static void muster_guard_end(void *db) {
	sqlite3_progress_handler(db, 0, 0, 0);
	free(current);
	current = 0;
}
*/
import "C"

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"time"

	"github.com/mattn/go-sqlite3"
)

func init() {
	if rc := C.muster_guard_install(); rc != 0 {
		panic("store/foreign: SQLite was in use before its memory could be guarded")
	}
}

// The limits of a statement. Errors of this package wrap them.
var (
	ErrTime   = errors.New("the query takes too long")
	ErrMemory = errors.New("the query takes too much memory")
)

// bounded runs f, which uses the connection, within limits that SQLite itself enforces: when ctx ends or the time is
// over its statements are interrupted, and allocations of this thread beyond memory bytes fail. SQLite's own memory
// limit covers the whole process, so an overrun would stop the leader's writes; sqlite3_interrupt is lost when no
// statement runs at that moment. f must not leave its goroutine, so it gives go-sqlite3 no context. The error is
// ErrTime or ErrMemory when a limit was reached, else that of f.
func bounded(ctx context.Context, conn *sqlite3.SQLiteConn, limit time.Duration, memory int64, f func() error) error {
	field := reflect.ValueOf(conn).Elem().FieldByName("db")
	if !field.IsValid() || field.Kind() != reflect.Pointer || field.IsNil() {
		return errors.New("store/foreign: go-sqlite3 has no field with its handle")
	}
	db := field.UnsafePointer()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := C.muster_guard_begin(db, C.longlong(limit), C.longlong(memory))
	if g == nil {
		return errors.New("store/foreign: out of memory")
	}
	defer C.muster_guard_end(db)
	stopped := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		C.muster_guard_stop(g)
		close(stopped)
	})
	err := f()
	if !cancel() {
		<-stopped
	}
	switch {
	case err == nil:
		return nil
	case g.why == 1:
		return ErrTime
	case g.why == 2:
		return ErrMemory
	}
	return err
}
