// Package dist has no code of its own: its tests make what is handed out, and install, upgrade and remove it.
package dist
