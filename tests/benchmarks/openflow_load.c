/* A load of OpenFlow 1.3 switches on one thread, for one controller: how fast it shakes hands, answers packets, and echoes.
 *
 *   openflow_load -p PORT [-s SWITCHES] [-o OUTSTANDING] [-t SECONDS] [-w WARM_UP_SECONDS] [-l LIMIT_SECONDS] [-e] [-i PID]
 *
 * All switches dial at once. With -o each keeps so many PACKET_INs unanswered: a FLOW_MOD or PACKET_OUT that names the buffer
 * of one is its answer, and the next leaves at once. With -e the switches send one ECHO_REQUEST a second each. With -i the processor
 * time of the controller, the process with that number, is measured. The result is one JSON object: times in milliseconds, counted after the warm-up. The exit status is 1 unless every switch shook hands.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, FEATURES_REQUEST = 5, FEATURES_REPLY, GET_CONFIG_REQUEST, GET_CONFIG_REPLY,
       PACKET_IN = 10, PACKET_OUT = 13, FLOW_MOD, MULTIPART_REQUEST = 18, MULTIPART_REPLY, BARRIER_REQUEST, BARRIER_REPLY,
       ROLE_REQUEST = 24, ROLE_REPLY };
enum { HOSTS = 1024, SERVER = HOSTS, PORTS = 4, FRAME = 64, PORT_DESC = 13, ROOM = 1 << 18 };
#define UNBUFFERED 0xffffffffu

struct waiting { uint64_t since; uint32_t buffer; };

struct sw {
  int number, fd, connected, ready, watched_out, host;
  uint64_t cookie, echo_since;
  struct waiting *waiting;
  uint8_t *in, *out;
  size_t in_bytes, out_bytes, out_room;
};

struct times { uint64_t *ns; size_t count, room; };

static struct sw *switches;
static int switch_count = 16, outstanding = 0, loop, errors = 0, lost = 0, measuring = 0, loading = 0;
static uint64_t answers = 0;
static struct times latencies, echoes;

static void fail(const char *what) { perror(what); exit(2); }

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }
static uint64_t get64(const uint8_t *at) { return (uint64_t)get32(at) << 32 | get32(at + 4); }
static void put16(uint8_t *at, unsigned value) { at[0] = (uint8_t)(value >> 8); at[1] = (uint8_t)value; }
static void put32(uint8_t *at, uint32_t value) { put16(at, value >> 16); put16(at + 2, value & 0xffff); }
static void put64(uint8_t *at, uint64_t value) { put32(at, (uint32_t)(value >> 32)); put32(at + 4, (uint32_t)value); }

static void note(struct times *times, uint64_t ns) {
  if (times->count == times->room) {
    times->room = times->room ? 2 * times->room : 1 << 16;
    if (!(times->ns = realloc(times->ns, times->room * sizeof *times->ns))) fail("realloc");
  }
  times->ns[times->count++] = ns;
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

static double quantile_ms(struct times *times, double share) {
  if (!times->count) return 0.0;
  qsort(times->ns, times->count, sizeof *times->ns, ascending);
  return (double)times->ns[(size_t)(share * (double)(times->count - 1))] / 1e6;
}

/* Processor time of a process in seconds. */
static double processor_s(int pid) {
  char path[64], text[1024];
  unsigned long user, system;
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  FILE *file = pid ? fopen(path, "r") : NULL;
  if (!file) return 0.0;
  size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[size] = 0;
  char *rest = strrchr(text, ')');
  if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) return 0.0;
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void watch(struct sw *s, int out) {
  if (s->watched_out == out) return;
  struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = s};
  epoll_ctl(loop, EPOLL_CTL_MOD, s->fd, &event);
  s->watched_out = out;
}

static void drop(struct sw *s) {
  if (s->fd < 0) return;
  close(s->fd);
  s->fd = -1;
  lost++;
}

static void flush(struct sw *s) {
  while (s->fd >= 0 && s->out_bytes) {
    ssize_t sent = send(s->fd, s->out, s->out_bytes, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EAGAIN) break;
      drop(s);
      return;
    }
    s->out_bytes -= (size_t)sent;
    memmove(s->out, s->out + sent, s->out_bytes);
  }
  if (s->fd >= 0) watch(s, s->out_bytes > 0);
}

/* Room for a message of `bytes` behind what is to be sent, its header filled in and the rest zero. */
static uint8_t *message(struct sw *s, int type, size_t bytes, uint32_t xid) {
  if (s->out_bytes + bytes > s->out_room) {
    s->out_room = 2 * (s->out_bytes + bytes) + 4096;
    if (!(s->out = realloc(s->out, s->out_room))) fail("realloc");
  }
  uint8_t *at = s->out + s->out_bytes;
  s->out_bytes += bytes;
  memset(at, 0, bytes);
  at[0] = 4;
  at[1] = (uint8_t)type;
  put16(at + 2, (unsigned)bytes);
  put32(at + 4, xid);
  return at;
}

static void address(uint8_t *at, const struct sw *s, int host) {
  at[0] = 2;
  put16(at + 2, (unsigned)s->number);
  put16(at + 4, (unsigned)host);
}

/* A frame from `host` to the server, or from the server to all, as a packet of the rule that has the controller's cookie. */
static void packet_in(struct sw *s, int host, unsigned port, uint32_t buffer) {
  uint8_t *at = message(s, PACKET_IN, 42 + FRAME, 0);
  put32(at + 8, buffer);
  put16(at + 12, FRAME);
  put64(at + 16, s->cookie);
  put16(at + 24, 1);
  put16(at + 26, 12);
  put32(at + 28, 0x80000004);
  put32(at + 32, port);
  if (host == SERVER) memset(at + 42, 0xff, 6);
  else address(at + 42, s, SERVER);
  address(at + 48, s, host);
  put16(at + 54, 0x0800);
}

static void ask(struct sw *s, int slot, uint64_t at) {
  struct waiting *w = &s->waiting[slot];
  w->buffer = (w->buffer + (uint32_t)outstanding) & 0x3fffffff;
  w->buffer = w->buffer - w->buffer % (uint32_t)outstanding + (uint32_t)slot;
  w->since = at;
  s->host = (s->host + 1) % HOSTS;
  packet_in(s, s->host, 1 + (unsigned)s->host % (PORTS - 1), w->buffer);
}

static void answered(struct sw *s, uint32_t buffer) {
  if (!loading || buffer == UNBUFFERED) return;
  int slot = (int)(buffer % (uint32_t)outstanding);
  if (s->waiting[slot].buffer != buffer) return;
  uint64_t at = now();
  if (measuring) {
    answers++;
    note(&latencies, at - s->waiting[slot].since);
  }
  ask(s, slot, at);
}

static void multipart(struct sw *s, const uint8_t *m, uint32_t xid) {
  unsigned kind = get16(m + 8);
  size_t bytes = 16 + (kind == PORT_DESC ? 64 * PORTS : kind == 0 ? 1056 : kind == 2 ? 24 : kind == 8 ? 40 : kind == 11 ? 16 : 0);
  uint8_t *at = message(s, MULTIPART_REPLY, bytes, xid);
  put16(at + 8, kind);
  if (kind != PORT_DESC) return;
  for (int port = 1; port <= PORTS; port++) {
    uint8_t *p = at + 16 + 64 * (port - 1);
    put32(p, (uint32_t)port);
    address(p + 8, s, 0x8000 + port);
    snprintf((char *)p + 16, 16, "s%d-eth%d", s->number, port);
  }
  s->ready = 1;
}

static void take(struct sw *s, const uint8_t *m, size_t bytes) {
  uint32_t xid = get32(m + 4);
  uint8_t *at;
  switch (m[1]) {
  case ERROR: errors++; break;
  case ECHO_REQUEST: at = message(s, ECHO_REPLY, bytes, xid); memcpy(at + 8, m + 8, bytes - 8); break;
  case ECHO_REPLY:
    if (measuring && s->echo_since) note(&echoes, now() - s->echo_since);
    s->echo_since = 0;
    break;
  case FEATURES_REQUEST:
    at = message(s, FEATURES_REPLY, 32, xid);
    put64(at + 8, (uint64_t)s->number + 1);
    put32(at + 16, 1 << 16);
    at[20] = 254;
    put32(at + 24, 0x4f);
    break;
  case GET_CONFIG_REQUEST: put16(message(s, GET_CONFIG_REPLY, 12, xid) + 10, 0xffff); break;
  case MULTIPART_REQUEST: multipart(s, m, xid); break;
  case BARRIER_REQUEST: message(s, BARRIER_REPLY, 8, xid); break;
  case ROLE_REQUEST: at = message(s, ROLE_REPLY, 24, xid); memcpy(at + 8, m + 8, 16); break;
  case PACKET_OUT: answered(s, get32(m + 8)); break;
  case FLOW_MOD:
    if (!get16(m + 30)) s->cookie = get64(m + 8); /* priority 0: the rule that sends packets to the controller */
    answered(s, get32(m + 32));
    break;
  default: break;
  }
}

static void readable(struct sw *s) {
  ssize_t got = recv(s->fd, s->in + s->in_bytes, ROOM - s->in_bytes, 0);
  if (got <= 0) {
    if (got == 0 || errno != EAGAIN) drop(s);
    return;
  }
  size_t end = s->in_bytes + (size_t)got, from = 0;
  while (end - from >= 8) {
    size_t bytes = get16(s->in + from + 2);
    if (bytes < 8) { drop(s); return; }
    if (end - from < bytes) break;
    take(s, s->in + from, bytes);
    from += bytes;
  }
  s->in_bytes = end - from;
  memmove(s->in, s->in + from, s->in_bytes);
  flush(s);
}

static void turn(int wait_ms) {
  struct epoll_event events[256];
  int count = epoll_wait(loop, events, 256, wait_ms);
  for (int i = 0; i < count; i++) {
    struct sw *s = events[i].data.ptr;
    if (s->fd >= 0 && !s->connected && events[i].events & (EPOLLOUT | EPOLLERR)) {
      int error = 0;
      socklen_t size = sizeof error;
      getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size);
      if (error) { drop(s); continue; }
      s->connected = 1;
      uint8_t *at = message(s, HELLO, 16, 1);
      put16(at + 8, 1);
      put16(at + 10, 8);
      put32(at + 12, 1 << 4);
    }
    if (s->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) readable(s);
    if (s->fd >= 0 && s->out_bytes) flush(s);
    else if (s->fd >= 0) watch(s, 0);
  }
}

static void dial(struct sw *s, int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int one = 1;
  if ((s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) fail("socket");
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(s->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) fail("connect");
  s->watched_out = 1;
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
  if (epoll_ctl(loop, EPOLL_CTL_ADD, s->fd, &event)) fail("epoll_ctl");
}

int main(int count, char **words) {
  int port = 6653, echo = 0, pid = 0, option;
  double seconds = 5, warm_up = 1, limit = 30;
  while ((option = getopt(count, words, "p:s:o:t:w:l:ei:")) != -1)
    switch (option) {
    case 'p': port = atoi(optarg); break;
    case 's': switch_count = atoi(optarg); break;
    case 'o': outstanding = atoi(optarg); break;
    case 't': seconds = atof(optarg); break;
    case 'w': warm_up = atof(optarg); break;
    case 'l': limit = atof(optarg); break;
    case 'e': echo = 1; break;
    case 'i': pid = atoi(optarg); break;
    default: return 2;
    }
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  loop = epoll_create1(0);
  if (!(switches = calloc((size_t)switch_count, sizeof *switches))) fail("calloc");
  uint64_t began = now(), shaken = began;
  for (int i = 0; i < switch_count; i++) {
    struct sw *s = &switches[i];
    s->number = i;
    s->waiting = calloc((size_t)outstanding + 1, sizeof *s->waiting);
    if (!(s->in = malloc(ROOM)) || !s->waiting) fail("malloc");
    dial(s, port);
  }
  int ready = 0;
  while (ready < switch_count && (double)(now() - began) < limit * 1e9) {
    turn(5);
    ready = 0;
    for (int i = 0; i < switch_count; i++) ready += switches[i].ready;
    shaken = now();
  }
  uint64_t start = now() + 1000000000u; /* the rest of the handshakes, and the rules that bring packets */
  while (now() < start) turn(10);
  for (int i = 0; outstanding && i < switch_count; i++)
    if (switches[i].fd >= 0) packet_in(&switches[i], SERVER, PORTS, UNBUFFERED), flush(&switches[i]);
  start += 300000000u;
  while (now() < start) turn(10);
  loading = outstanding > 0;
  for (int i = 0; loading && i < switch_count; i++) {
    for (int slot = 0; slot < outstanding && switches[i].fd >= 0; slot++) ask(&switches[i], slot, now());
    flush(&switches[i]);
  }
  uint64_t measured = start + (uint64_t)(warm_up * 1e9), end = measured + (uint64_t)(seconds * 1e9), at, next = now();
  double used_s = 0;
  for (int turn_of = 0; (at = now()) < end;) {
    if (!measuring && at >= measured) {
      measuring = 1;
      used_s = processor_s(pid);
    }
    for (; echo && next <= at; next += 1000000000u / (unsigned)switch_count, turn_of = (turn_of + 1) % switch_count) {
      struct sw *s = &switches[turn_of];
      if (s->fd < 0 || s->echo_since) continue;
      s->echo_since = now();
      message(s, ECHO_REQUEST, 8, 7);
      flush(s);
    }
    turn(echo ? 1 : 10);
  }
  used_s = processor_s(pid) - used_s;
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  printf("{\"switches\": %d, \"handshaken\": %d, \"handshake_s\": %.4f, \"lost\": %d, \"errors\": %d, \"answers\": %llu, "
         "\"seconds\": %.3f, \"answers_per_s\": %.1f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"echoes\": %zu, "
         "\"echo_p50_ms\": %.4f, \"echo_p99_ms\": %.4f, \"cpu_s\": %.2f, \"generator_cpu_s\": %.3f}\n",
         switch_count, ready, (double)(shaken - began) / 1e9, lost, errors, (unsigned long long)answers,
         (double)(end - measured) / 1e9, (double)answers / ((double)(end - measured) / 1e9), quantile_ms(&latencies, 0.5),
         quantile_ms(&latencies, 0.99), quantile_ms(&latencies, 0.999), echoes.count, quantile_ms(&echoes, 0.5),
         quantile_ms(&echoes, 0.99), used_s, (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
         (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
  return ready < switch_count;
}
