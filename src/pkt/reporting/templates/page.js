
// a button that copies beside every line for a shell; a page without scripts lets a click select the line
document.querySelectorAll(".snippet").forEach(snippet => {
  const line = snippet.querySelector("pre"), button = document.createElement("button");
  const said = told => { button.textContent = told; setTimeout(() => { button.textContent = "copy"; }, 2000); };
  button.type = "button";
  button.textContent = "copy";
  button.setAttribute("aria-label", "copy: " + snippet.querySelector("figcaption").textContent);
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(line);
    if (document.execCommand("copy")) said("copied");
    else if (navigator.clipboard) navigator.clipboard.writeText(line.textContent).then(() => said("copied"), () => said("selected"));
    else said("selected");
  });
  snippet.append(button);
});
