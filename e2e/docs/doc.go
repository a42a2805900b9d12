// Package docs has no code of its own: its tests run the commands of README.md and docs/*.md, as they stand there,
// against real clusters, and compare what they print with what the documents show.
//
// What a block needs stands in a comment before it, which readers of the page do not see:
//
//	<!-- run: cluster=3 -->     a new place with a cluster of three in ./data
//	<!-- run: empty -->         a new place with nothing in it
//	<!-- run: exit=1 -->        the last command of the block fails with this exit status
//	<!-- run: on=2 -->          /var/lib/muster and DIR are those of member 2
//	<!-- run: no, REASON -->    it is not run: it needs something that is not here
//
// Words can be combined. Further lines of the comment are commands that are run first, unseen. A block without a
// comment goes on where the block before it has stopped. In a block a line that begins with "$ ", "# ", or one of these
// after a machine's letter ("B$ ") is a command, others are what it prints. What is printed has to show the lines in
// this order; numbers, hexadecimal digits and times may differ, "…" stands for anything.
package docs
