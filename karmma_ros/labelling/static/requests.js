// Requests to the server of this page.

function address(name, parameters = {}) {
  return `api/${name}?${new URLSearchParams(parameters)}`;
}

export async function getJson(name, parameters) {
  const response = await fetch(address(name, parameters));
  const body = await response.json();
  if (!response.ok) throw new Error(body.error);
  return body;
}

/** Return the response to a change; status 0 where the server cannot be reached. */
export async function postJson(name, given) {
  try {
    const response = await fetch(`api/${name}`, {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(given)});
    return {status: response.status, body: await response.json()};
  } catch {
    return {status: 0, body: {error: '`karmma label` cannot be reached: was it ended?'}};
  }
}

export async function getFrame(parameters) {
  try {
    const response = await fetch(address('frame', parameters));
    if (!response.ok) return null;
    return {time: Number(response.headers.get('X-Frame-Time')), blob: await response.blob()};
  } catch { return null; }
}

export async function getBytes(name, parameters) {
  try {
    const response = await fetch(address(name, parameters));
    return response.ok ? await response.arrayBuffer() : null;
  } catch { return null; }
}

export async function getImage(name, parameters) {
  const data = await getBytes(name, parameters);
  return data && createImageBitmap(new Blob([data], {type: 'image/png'}));
}

export const exportAddress = parameters => address('export', parameters);
