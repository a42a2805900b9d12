package handlers

// builtIn are the families.
func (s *Server) builtIn() []*Family {
	native := Enveloped("native")
	native.Paths, native.Routes = []string{"", "/api/v1/cluster/join-"}, s.nativeRoutes()
	ella := Enveloped("ella")
	ella.Routes = s.ellaRoutes()
	return []*Family{native, ella, s.zlayerFamily(), s.elasticFamily(), s.consulFamily(), s.nomadFamily(), s.pageFamily()}
}
