package handlers

func (s *Server) pageRoutes() []Route {
	return []Route{
		{Method: "GET", Path: "/ui", At: Here, Serve: s.servePage},
		{Method: "GET", Path: "/ui/", At: Here, Serve: s.servePage},
		{Method: "GET", Path: "/ui/{file}", At: Here, Serve: s.servePage},
	}
}
