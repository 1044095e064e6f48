// What this browser remembers. Private windows may remember nothing.

export function load(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`sgan ${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function save(name, value) {
  try {
    localStorage.setItem(`sgan ${name}`, JSON.stringify(value));
  } catch {
    // nothing is remembered
  }
}
