// What three.min.js is made of; README.md says how.
import {
  BufferAttribute, BufferGeometry, Line, LineBasicMaterial, Mesh, MeshBasicMaterial, PerspectiveCamera, Points,
  PointsMaterial, Scene, SphereGeometry, Spherical, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";

window.THREE = {
  BufferAttribute, BufferGeometry, Line, LineBasicMaterial, Mesh, MeshBasicMaterial, OrbitControls, PerspectiveCamera,
  Points, PointsMaterial, Scene, SphereGeometry, Spherical, WebGLRenderer,
};
