"use strict";
// Point clouds that can be turned; three.min.js gives window.THREE.

(() => {
  const told = document.getElementById("cloud-told");
  const canvas = document.getElementById("cloud-canvas");
  const choice = document.getElementById("cloud-choice");
  const grows = document.getElementById("cloud-grows");
  const clouds = JSON.parse(document.getElementById("clouds").textContent);
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true });
  } catch {
    told.textContent = "This browser cannot show it: it has no WebGL 2.";
    return;
  }
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const scene = new THREE.Scene();
  const camera = new THREE.PerspectiveCamera(55, 1, 0.01, 1000);
  const controls = new THREE.OrbitControls(camera, canvas);
  const ball = new THREE.Mesh(new THREE.SphereGeometry(1, 16, 12), new THREE.MeshBasicMaterial({ color: 0xd55e00 }));
  let cloud, points, path;
  let frame = 0;

  function draw() {
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    renderer.render(scene, camera);
  }

  function reset() {
    // from behind the first camera and a little above it, towards what it sees
    const { center, radius } = points.geometry.boundingSphere;
    controls.target.copy(center);
    camera.position.set(center.x + 0.3 * radius, center.y + 0.8 * radius, center.z + 1.6 * radius);
    controls.update();
    draw();
  }

  function follow() {
    const part = grows && grows.checked && cloud.ends;
    points.geometry.setDrawRange(0, part ? cloud.ends[frame] : Infinity);
    if (cloud.path.length) { ball.position.set(...cloud.path[Math.min(frame, cloud.path.length - 1)]); }
    draw();
  }

  function show(number) {
    cloud = clouds[number];
    for (const old of [points, path, ball]) { if (old) { scene.remove(old); } }
    const geometry = new THREE.BufferGeometry();
    const steps = new Int16Array(bytes(cloud.points).buffer);
    geometry.setAttribute("position", new THREE.BufferAttribute(Float32Array.from(steps, (step) => step * cloud.step), 3));
    const colours = bytes(cloud.colours);
    // the library wants linear light
    const linear = Float32Array.from(colours, (value) => Math.pow(value / 255, 2.2));
    geometry.setAttribute("color", new THREE.BufferAttribute(linear, 3));
    geometry.computeBoundingSphere();
    const size = geometry.boundingSphere.radius / 60;
    points = new THREE.Points(geometry, new THREE.PointsMaterial({ size, vertexColors: true }));
    scene.add(points);
    if (cloud.path.length) {
      const way = new THREE.BufferGeometry();
      way.setAttribute("position", new THREE.BufferAttribute(Float32Array.from(cloud.path.flat()), 3));
      path = new THREE.Line(way, new THREE.LineBasicMaterial({ color: 0xd55e00 }));
      ball.scale.setScalar(geometry.boundingSphere.radius / 50);
      scene.add(path, ball);
    }
    told.textContent = `${steps.length / 3} points.`;
    reset();
    follow();
  }

  clouds.forEach((each, number) => choice.add(new Option(each.label, String(number))));
  choice.addEventListener("change", () => show(Number(choice.value)));
  document.getElementById("cloud-reset").addEventListener("click", reset);
  if (grows) { grows.addEventListener("change", follow); }
  document.addEventListener("frame", (event) => { frame = event.detail; follow(); });
  controls.addEventListener("change", draw);
  window.addEventListener("resize", draw);
  canvas.addEventListener("keydown", (event) => {
    const around = new THREE.Spherical().setFromVector3(camera.position.clone().sub(controls.target));
    const turns = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key in turns) {
      around.theta += turns[event.key][0];
      around.phi += turns[event.key][1];
      around.makeSafe();
    } else if (event.key === "+" || event.key === "-") {
      around.radius *= event.key === "+" ? 0.9 : 1 / 0.9;
    } else {
      return;
    }
    event.preventDefault();
    camera.position.setFromSpherical(around).add(controls.target);
    controls.update();
  });
  frame = Number(document.getElementById("frame")?.value ?? 0);
  show(0);
})();
