package engine

/*
#include <malloc.h>

long long sqlite3_memory_used(void);

// Before main, and so before Go's runtime has threads: an arena that exists stays.
__attribute__((constructor)) static void bound_arenas(void) { mallopt(M_ARENA_MAX, 2); }

static void c_memory(unsigned long long *used, unsigned long long *kept, unsigned long long *sqlite) {
	struct mallinfo2 m = mallinfo2();
	*used = m.uordblks + m.hblkhd;
	*kept = m.fordblks;
	*sqlite = sqlite3_memory_used();
}
*/
import "C"

// glibc may give each thread that allocates in C an arena of its own, which keeps freed memory. With many short-lived
// threads that is a third of a member's memory; two arenas are as fast. What a burst of writes leaves free in them goes
// back to the kernel if it is more than keepAtMost.
const keepAtMost = 8 << 20

// cMemory is what the C code of this process holds, in bytes, unknown to Go's runtime.
type cMemory struct {
	sqlite uint64 // the database in dqlite and the page caches of all connections
	raft   uint64 // everything else in use, most of it entries of the Raft log
	free   uint64 // freed, and available to the next allocation
}

func heldByC() cMemory {
	var used, kept, sqlite C.ulonglong
	C.c_memory(&used, &kept, &sqlite)
	return cMemory{
		sqlite: uint64(sqlite),
		raft:   uint64(max(used, sqlite) - sqlite),
		free:   uint64(kept),
	}
}

// giveBack returns freed memory to the kernel. It takes about a millisecond.
func giveBack() {
	if heldByC().free > keepAtMost {
		C.malloc_trim(0)
	}
}
