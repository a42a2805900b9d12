package autopilot
import "strings"
func contains2(k string) bool { return strings.Contains(k,"add")&&strings.Contains(k,"remove")||strings.Contains(k,"promote")&&strings.Contains(k,"demote")}
