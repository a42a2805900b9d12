package handlers

func (s *Server) zlayerRoutes() []Route {
	return []Route{
		{Method: "POST", Path: "/api/v1/cluster/join", Plain: true, Serve: s.join},
	}
}
