// Runs before the first paint, so that nobody is dazzled: the colours that were chosen, or the system's.
{
  const chosen = localStorage.getItem("muster-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
