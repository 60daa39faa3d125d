// Reports OpenCode's sessions and their states to swarm-agent; never any text of a conversation.
import { spawn } from "node:child_process"

const EVENTS = new Set(["session.created", "session.status", "session.error", "permission.asked",
  "permission.replied", "question.asked", "question.replied", "question.rejected"])

export const SwarmAgent = async ({ directory }) => {
  const parents = new Map() // subagent's session → the session it works for
  const latest = new Map() // session → its last status, because the same one is repeated often
  let order = Promise.resolve()

  function tell(session, event, more) {
    let root = session
    while (parents.has(root)) root = parents.get(root)
    const payload = { hook_event_name: event, session_id: root, cwd: directory, ...more }
    if (root !== session) payload.agent_id = session
    // One after the other; nothing waits for them.
    order = order.then(() => new Promise((done) => {
      const child = spawn("swarm-agent", ["hook", "opencode"], { stdio: ["pipe", "ignore", "ignore"] })
      child.on("error", done)
      child.on("close", done)
      child.stdin.on("error", () => {})
      child.stdin.end(JSON.stringify(payload))
    }))
  }

  return {
    event: async ({ event }) => {
      const { type, properties = {} } = event
      if (!EVENTS.has(type)) return
      const session = properties.sessionID ?? properties.info?.id
      if (!session) return
      if (properties.info?.parentID) parents.set(session, properties.info.parentID)
      if (type === "session.status") {
        const status = properties.status?.type === "idle" ? "idle" : "busy"
        if (latest.get(session) === status) return
        latest.set(session, status)
        tell(session, type, { status })
      } else if (type === "session.error") {
        tell(session, type, { error: properties.error?.name })
      } else tell(session, type, {})
    },
    "tool.execute.before": async ({ sessionID, callID }) =>
      tell(sessionID, "tool.before", { tool_use_id: callID }),
    "tool.execute.after": async ({ sessionID, callID }) =>
      tell(sessionID, "tool.after", { tool_use_id: callID }),
  }
}
