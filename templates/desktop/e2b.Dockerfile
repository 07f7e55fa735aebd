# A light desktop: Xfce on a virtual display, with what the desktop SDK calls. The SDK starts
# the display, the session and the stream itself.
FROM e2bdev/base
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    adwaita-icon-theme dbus-x11 firefox-esr fonts-dejavu-core fonts-liberation \
    libgtk-3-bin mousepad net-tools novnc scrot thunar websockify x11-apps \
    x11-utils x11-xserver-utils x11vnc xauth xdg-utils xdotool xfce4-panel \
    xfce4-session xfce4-settings xfce4-terminal xfdesktop4 xfwm4 xvfb \
 && rm -rf /var/lib/apt/lists/*
# Where the SDK looks for the web client.
RUN ln -s /usr/share/novnc /opt/noVNC && test -x /opt/noVNC/utils/novnc_proxy
# The first session asks nothing, and nothing blanks or locks the screen.
RUN mkdir -p /etc/skel/.config/xfce4/xfconf/xfce-perchannel-xml \
 && cp /etc/xdg/xfce4/panel/default.xml \
    /etc/skel/.config/xfce4/xfconf/xfce-perchannel-xml/xfce4-panel.xml \
 && cp -a /etc/skel/.config /home/user/ && chown -R user:user /home/user/.config
ENV MOZ_DISABLE_CONTENT_SANDBOX=1
