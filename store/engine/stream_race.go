//go:build race

package engine

func init() { watched = true }
