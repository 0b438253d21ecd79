// A picture from the camera, where the browser lets the page use one.

import { byId } from "./dom.js";

const QUALITY = 0.95;

export function start(show) {
  const button = byId("camera");
  // Without HTTPS browsers give no camera to a page, except on the machine itself.
  button.hidden = !(window.isSecureContext && navigator.mediaDevices?.getUserMedia);
  button.addEventListener("click", () => open(show));
}

async function open(show) {
  const dialog = byId("camera-dialog");
  const video = byId("video");
  const shoot = byId("shoot");
  const error = byId("camera-error");
  let stream = null;
  let left = false;
  const stop = () => {
    left = true;
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
  error.textContent = "";
  shoot.disabled = true;
  byId("camera-cancel").onclick = () => dialog.close();
  dialog.onclose = stop;
  video.onloadeddata = () => (shoot.disabled = false);
  shoot.onclick = async () => {
    const file = await frame(video);
    dialog.close();
    show(file);
  };
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
    if (left) stop();
    else video.srcObject = stream;
  } catch (refused) {
    const forbidden = refused.name === "NotAllowedError";
    error.textContent = forbidden ? "The browser was not allowed to use the camera." : "No camera could be used.";
  }
}

async function frame(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY });
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}
