package engine

// #include <malloc.h>
import "C"

// Every thread that C code allocates from may get an arena of its own from glibc, which keeps what is freed in it. With
// many threads that come and go that is a third of a member's memory; two arenas are as fast.
func init() { C.mallopt(C.M_ARENA_MAX, 2) }
