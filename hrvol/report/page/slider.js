"use strict";
for (const viewer of document.querySelectorAll(".viewer")) {
  const planes = viewer.querySelectorAll(".strip figure");
  const range = viewer.querySelector("input[type=range]");
  const output = viewer.querySelector("output");
  const show = () => {
    const number = Number(range.value);
    planes.forEach((plane, other) => plane.classList.toggle("now", other === number));
    output.value = planes[number].dataset.title;
    range.setAttribute("aria-valuetext", planes[number].dataset.title);
  };
  viewer.classList.add("live");
  const strip = viewer.querySelector(".strip");
  strip.removeAttribute("tabindex");
  range.addEventListener("input", show);
  show();
}
