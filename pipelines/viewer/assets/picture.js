// Images: small in the text, full size in a dialog that zooms.

const PICTURE = /^[A-Za-z0-9+/]+=*$/;
const zoom = { scale: 1, isFit: true };
const zoomImage = make("img", { alt: "" });
const zoomTitle = make("span", { class: "title" });
const zoomBox = make("div", { class: "canvas", tabindex: 0, "aria-label": "The image; + and − zoom, 1 is its original size, 0 fits it" }, zoomImage);
const zoomWindow = make(
  "dialog",
  { class: "zoom", "aria-label": "Image" },
  make(
    "header",
    {},
    zoomTitle,
    button("−", () => zoomBy(1 / 1.5), { "aria-label": "Smaller" }),
    button("1 : 1", () => zoomTo(1), { "aria-label": "Original size" }),
    button("Fit", () => zoomToFit()),
    button("+", () => zoomBy(1.5), { "aria-label": "Larger" }),
    button("Close", () => zoomWindow.close(), { class: "primary" }),
  ),
  zoomBox,
);

const zoomTo = (scale, { isFit = false } = {}) => {
  zoom.scale = Math.min(32, Math.max(0.05, scale));
  zoom.isFit = isFit;
  zoomImage.style.width = `${Math.round(zoomImage.naturalWidth * zoom.scale)}px`;
  zoomImage.classList.toggle("pixels", zoom.scale > 2);
  zoomTitle.textContent = `${zoomImage.alt} · ${Math.round(100 * zoom.scale)} %`;
};

const zoomToFit = () => {
  const room = [zoomBox.clientWidth - 24, zoomBox.clientHeight - 24];
  zoomTo(Math.min(room[0] / zoomImage.naturalWidth, room[1] / zoomImage.naturalHeight, 8), { isFit: true });
};

const zoomBy = (factor) => zoomTo(zoom.scale * factor);

zoomBox.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2);
}, { passive: false });
zoomWindow.addEventListener("keydown", (event) => {
  const actions = { "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 1: () => zoomTo(1), 0: zoomToFit };
  if (Object.hasOwn(actions, event.key)) {
    event.preventDefault();
    actions[event.key]();
  }
  event.stopPropagation();
});
zoomWindow.addEventListener("click", (event) => {
  if (event.target === zoomWindow || event.target === zoomBox) zoomWindow.close();
});

const openPicture = (source, title) => {
  zoomImage.alt = title;
  Object.assign(zoom, { scale: 1, isFit: true });
  // A key may be pressed before the image has loaded: its zoom is applied on load.
  zoomImage.onload = () => (zoom.isFit ? zoomToFit() : zoomTo(zoom.scale));
  zoomImage.src = source;
  if (!zoomWindow.open) zoomWindow.showModal();
  zoomBox.focus();
};

const picture = (digest, pictures, title) => {
  const data = pictures[digest];
  if (typeof data !== "string" || !PICTURE.test(data)) return make("p", { class: "lost", text: `${title}: this image is missing from the store (${digest.slice(0, 12)})` });
  const source = `data:image/png;base64,${data}`;
  const image = make("img", { src: source, alt: title, decoding: "async" });
  const caption = make("span", { class: "size" });
  const open = make("button", { type: "button", class: "picture", "aria-label": `${title}, enlarge`, on: { click: () => openPicture(source, image.alt) } }, image, caption);
  image.addEventListener("load", () => {
    caption.textContent = `${image.naturalWidth} × ${image.naturalHeight}`;
    image.alt = `${title}, ${image.naturalWidth} by ${image.naturalHeight} pixels`;
  });
  image.addEventListener("error", () => open.replaceWith(make("p", { class: "lost", text: `${title}: this image cannot be read` })));
  return open;
};

const pictureRow = (digests, pictures, title) =>
  make("div", { class: "pictures" }, ...digests.map((digest, place) => picture(digest, pictures, digests.length > 1 ? `${title} ${place + 1}` : title)));
