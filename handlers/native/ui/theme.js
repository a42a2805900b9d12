// Runs before the first paint, to avoid a flash: the chosen colours, or the system's.
{
  const chosen = localStorage.getItem("muster-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
